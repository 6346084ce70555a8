"""An update that trains a weight's principal part."""

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
    name="pissa",
    example={"rank": 2},
    needs={"weight"},
    papers=(
        Paper(
            "Meng, Wang, Zhang",
            2024,
            "PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large Language Models",
            "arXiv:2404.02948",
        ),
    ),
)
class PiSSA(Adapter):
    """``W' = W - B₀ A₀ + B A`` where B₀ A₀ is the best rank-r part of W, and B, A start there.

    B₀ = U √S (out, rank) and A₀ = √S Vᵀ (rank, in) from the SVD. The paper stores the residual W - B₀ A₀ in W's
    place; here W stays as it is and the update is ``[B, -B₀] [A; A₀]``, of rank 2 r, so that it can be summed with
    others and taken out. B₀ and A₀ are worked out again on loading. A row takes 4 rank (in + out) operations.

    >>> adapter = PiSSA((6, 8), rank=2)
    >>> sum(p.numel() for p in adapter.parameters())
    28
    """

    A0: Tensor
    B0: Tensor

    learning_rate = 0.0005

    def __init__(self, shape: tuple[int, ...], *, rank: int = 8) -> None:
        super().__init__()
        out, n = matrix(shape)
        self.rank = _check.rank(rank, min(out, n), f"the shorter side of a weight of shape {shape}")
        self.register_buffer("A0", torch.zeros(rank, n), persistent=False)
        self.register_buffer("B0", torch.zeros(out, rank), persistent=False)
        self.A, self.B = nn.Parameter(torch.zeros(rank, n)), nn.Parameter(torch.zeros(out, rank))

    def derive(self, base: Frozen) -> None:
        u, s, v = truncated_svd(base.weight.flatten(1).to(torch.float64), self.rank)
        self.B0.copy_(u * s.sqrt())
        self.A0.copy_(s.sqrt().unsqueeze(1) * v)
        self.B.copy_(self.B0)
        self.A.copy_(self.A0)

    def update(self, base: Frozen) -> LowRank:  # noqa: ARG002
        return LowRank(torch.cat((self.B, -self.B0), 1), torch.cat((self.A, self.A0), 0))
