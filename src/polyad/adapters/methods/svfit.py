"""An update of a weight's largest singular values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import LowRank
from polyad.linalg import truncated_svd


@method(
    "adapter",
    name="svfit",
    example={"rank": 3},
    needs={"weight"},
    instead=(
        "Where a task needs new directions and not new weights of those there are: `lora`, at sixteen times "
        "the numbers."
    ),
    papers=(
        Paper(
            "Sun, Wei, Wu, Shi, He, Ma, Xie, Yang",
            2024,
            "SVFit: Parameter-Efficient Fine-Tuning of Large Pre-Trained Models Using Singular Values",
            "arXiv:2409.05926",
            handle="svfit",
        ),
    ),
)
class SVFit(Adapter):
    """``W' = W - U diag(s₀) Vᵀ + U diag(s) Vᵀ``: the ``rank`` largest singular values are trained, nothing else.

    The update is U diag(s - s₀) Vᵀ with U (out, rank) and V (in, rank) from W's SVD, worked out again on loading; s
    starts at s₀. ``rank`` numbers are trained and saved. A row takes 2 rank (in + out) operations. Since the vectors
    stay, only changes that W's own singular basis makes diagonal can be learnt.

    >>> sum(p.numel() for p in SVFit((6, 8), rank=4).parameters())
    4
    """

    U: Tensor
    V: Tensor
    s0: Tensor

    learning_rate = 0.03

    def __init__(self, shape: tuple[int, ...], *, rank: int = 256) -> None:
        super().__init__()
        out, n = matrix(shape)
        self.rank = _check.rank(rank, min(out, n), f"the shorter side of a weight of shape {shape}")
        for name, size in (("U", (out, rank)), ("V", (rank, n)), ("s0", (rank,))):
            self.register_buffer(name, torch.zeros(size), persistent=False)
        self.s = nn.Parameter(torch.zeros(rank))

    def derive(self, base: Frozen) -> None:
        u, s, v = truncated_svd(base.weight.flatten(1).to(torch.float64), self.rank)
        for target, tensor in ((self.U, u), (self.V, v), (self.s0, s), (self.s, s)):
            target.copy_(tensor)

    def update(self, base: Frozen) -> LowRank:  # noqa: ARG002
        return LowRank(self.U * (self.s - self.s0), self.V)
