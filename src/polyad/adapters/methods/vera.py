"""Random matrices that all layers share, scaled by vectors of each layer's own."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, Bank, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import LowRank


@method(
    "adapter",
    name="vera",
    example={"rank": 3},
    papers=(
        Paper(
            "Kopiczko, Blankevoort, Asano", 2024, "VeRA: Vector-based Random Matrix Adaptation", "arXiv:2310.11454"
        ),
    ),
)
class VeRA(Adapter):
    """``ΔW = diag(b) B diag(d) A`` with random B (out, rank) and A (rank, in) that are frozen and shared.

    Trained are b (out,), which starts at zero so that the update does, and d (rank,), which starts at ``start``: out
    + rank numbers a layer. B and A are Kaiming-uniform, of the variances 2 / rank and 2 / in, follow from a seed and
    are not stored. Layers of one shape share them. A row takes 2 rank (in + out) operations.

    >>> adapter = VeRA((6, 8), rank=4)
    >>> sum(p.numel() for p in adapter.parameters())
    10
    """

    learning_rate = 0.02

    def __init__(
        self, shape: tuple[int, ...], *, rank: int = 256, start: float = 0.1, bank: Bank | None = None
    ) -> None:
        super().__init__()
        out, n = matrix(shape)
        _check.rank(rank, 2**31, "what memory holds")
        bank = self.borrow(bank)
        self.A = bank.frozen("A", (rank, n), lambda g: _uniform((rank, n), g))
        self.B = bank.frozen("B", (out, rank), lambda g: _uniform((out, rank), g))
        self.d = nn.Parameter(torch.full((rank,), start))
        self.b = nn.Parameter(torch.zeros(out))

    def update(self, base: Frozen) -> LowRank:  # noqa: ARG002
        return LowRank(self.b.unsqueeze(1) * self.B().to(self.b.dtype) * self.d, self.A().to(self.b.dtype))

    def few(self, x: Tensor) -> Tensor:
        A, B, b, d = (t.to(x.dtype) for t in (self.A(), self.B(), self.b, self.d))
        return F.linear(F.linear(x, A) * d, B) * b


def _uniform(shape: tuple[int, int], generator: Generator) -> Tensor:
    """Kaiming's uniform numbers for a gain of √2: within ±√(6 / columns)."""
    return (2 * torch.rand(shape, generator=generator) - 1) * (6 / shape[1]) ** 0.5
