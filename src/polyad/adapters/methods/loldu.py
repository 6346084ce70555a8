"""An update of the diagonal of a weight's LDU decomposition."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import LowRank


@method(
    "adapter",
    name="loldu",
    example={"rank": 3, "inner_alpha": True},
    needs={"weight"},
    instead=(
        "Where a task is more than a rescaling of what the weight already does: `lora`, at sixteen times the numbers."
    ),
    papers=(
        Paper(
            "Shi, Wei, Wu, Lu, Qin, Sun, He, Yang",
            2024,
            "LoLDU: Low-Rank Adaptation via Lower-Diag-Upper Decomposition for Parameter-Efficient Fine-Tuning",
            "arXiv:2410.13618",
            handle="loldu",
        ),
    ),
)
class LoLDU(Adapter):
    """``W' = W + P L (σ diag(z) - σ₀ diag(d)) U`` with W = P L diag(d) U, of which the first ``rank`` terms are used.

    Trained are z (rank,), which starts at d, and the factor σ, which starts at ``alpha`` / rank (1 by default): rank
    + 1 numbers. P is the permutation of the rows with partial pivoting, L (out, rank) unit lower and U (rank, in)
    unit upper trapezoidal, worked out again on loading. Where a pivot is zero, d is 1 there and U's row is the
    pivoted one, which keeps the product exact. A row takes 2 rank (in + out) operations. Rows of U with a small pivot
    are long, so that z is far less well scaled than singular values. The authors' code starts σ at 1 / rank, which
    leaves all but that share of the product to the frozen rest.

    >>> sum(p.numel() for p in LoLDU((6, 8), rank=4).parameters())
    5
    """

    L: Tensor
    U: Tensor
    d: Tensor

    learning_rate = 0.0002

    def __init__(self, shape: tuple[int, ...], *, rank: int = 256, alpha: float | None = None) -> None:
        super().__init__()
        out, n = matrix(shape)
        self.rank = _check.rank(rank, min(out, n), f"the shorter side of a weight of shape {shape}")
        for name, size in (("L", (out, rank)), ("U", (rank, n)), ("d", (rank,))):
            self.register_buffer(name, torch.zeros(size), persistent=False)
        self.start = (rank if alpha is None else alpha) / rank
        self.z, self.factor = nn.Parameter(torch.zeros(rank)), nn.Parameter(torch.tensor(self.start))

    def derive(self, base: Frozen) -> None:
        P, L, U = torch.linalg.lu(base.weight.flatten(1).to(torch.float64))
        d = U.diagonal()[: self.rank]
        d = torch.where(d == 0, 1.0, d)
        numbers = (
            (self.L, (P @ L)[:, : self.rank]),
            (self.U, U[: self.rank] / d.unsqueeze(1)),
            (self.d, d),
            (self.z, d),
        )
        for target, tensor in numbers:
            target.copy_(tensor)

    def update(self, base: Frozen) -> LowRank:  # noqa: ARG002
        return LowRank(self.L * (self.factor * self.z - self.start * self.d), self.U)
