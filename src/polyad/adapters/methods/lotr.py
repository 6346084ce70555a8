"""Updates of all layers as one tensor of low Tucker rank."""

from __future__ import annotations

import torch
from torch import nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, Bank, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import LowRank


@method(
    "adapter",
    name="lotr",
    example={"rank": 2},
    instead=(
        "Where numbers are not scarce: `lora` of the same rank; at as many numbers as LoTR's it is the worse one."
    ),
    papers=(
        Paper(
            "Bershatsky, Cherniuk, Daulbaev, Mikhalev, Oseledets",
            2024,
            "LoTR: Low Tensor Rank Weight Adaptation",
            "arXiv:2402.01376",
            handle="lotr",
        ),
    ),
)
class LoTR(Adapter):
    """``ΔW_l = alpha / rank · A G_l B`` with A (out, rank) and B (rank, in) shared, and G_l (rank, rank) of layer l.

    Layers of one number of rows share A, those of one number of columns share B; they are trained, and saved once.
    L layers of (d, d) train 2 d rank + L rank² numbers, where LoRA trains 2 L d rank. A and B are normal, of variance
    1 / rank and 1 / in (of variance 1 in the authors' code, which makes a step larger), G is zero, so that nothing
    changes at first. A row takes 2 rank (in + out) operations and a
    call 2 rank² times the shorter side.

    >>> bank = Bank(seed=0)
    >>> layers = [LoTR((6, 8), rank=2, bank=bank) for _ in range(3)]
    >>> sum(p.numel() for p in bank.parameters()), sum(p.numel() for p in layers[0].parameters())
    (28, 4)
    """

    learning_rate = 0.0005

    def __init__(
        self, shape: tuple[int, ...], *, rank: int = 8, alpha: float | None = None, bank: Bank | None = None
    ) -> None:
        super().__init__()
        out, n = matrix(shape)
        _check.rank(rank, min(out, n), f"the shorter side of a weight of shape {shape}")
        bank = self.borrow(bank)
        self.A = bank.trained("A", (out, rank), lambda g: torch.randn(out, rank, generator=g) / rank**0.5)
        self.B = bank.trained("B", (rank, n), lambda g: torch.randn(rank, n, generator=g) / n**0.5)
        self.G = nn.Parameter(torch.zeros(rank, rank))
        self.scale = 1.0 if alpha is None else alpha / rank

    def update(self, base: Frozen) -> LowRank:  # noqa: ARG002
        A, B, G = self.A().to(self.G.dtype), self.B().to(self.G.dtype), self.G
        return LowRank(A @ G, B) if len(A) <= B.shape[1] else LowRank(A, G @ B)
