"""A random Tucker network that layers share, scaled by vectors of each layer's own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, Bank, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import Format, Network
from polyad.formats.structured.grid import balanced_divisor


@method(
    "adapter",
    makes=None,
    name="tera",
    example={},
    papers=(
        Paper(
            "Gu, Zhou, Iacovides, Mandic",
            2025,
            "TeRA: Vector-based Random Tensor Network for High-Rank Adaptation of Large Language Models",
            "arXiv:2509.03234",
            handle="tera",
        ),
    ),
)
class TeRA(Adapter):
    """``ΔW = alpha · (U₁ D₁ ⊗ U₂ D₂) G (D₃ V₁ᵀ ⊗ D₄ V₂ᵀ)``: a Tucker tensor of the modes of out and in, as a matrix.

    out = a b and in = c d are split as near to their roots as they divide. The factors U₁ (a, a), U₂ (b, b), V₁ (c,
    c), V₂ (d, d) and the core G (out, in) are normal, of variances that keep norms, follow from a seed, are shared by
    layers of one shape and are not stored. Trained are the diagonals alone: a + b + c + d numbers, D₁ from zero, so
    that nothing changes at first, the others from one. The rank is full, whatever their count. A row takes
    2 (out · in + out (a + b) + in (c + d)) operations, so that the host folds it into the weight for many rows.

    That the modes are two a side, and the ranks those of the modes, is this library's choice; vectors lie between the
    core and the factors only.

    >>> adapter = TeRA((6, 8))
    >>> sum(p.numel() for p in adapter.parameters())
    11
    """

    learning_rate = 0.05

    def __init__(self, shape: tuple[int, ...], *, alpha: float = 1.0, bank: Bank | None = None) -> None:
        super().__init__()
        out, n = matrix(shape)
        bank = self.borrow(bank)
        a, c = balanced_divisor(out), balanced_divisor(n)
        self.modes = (a, out // a, c, n // c)
        self.frozen = [
            bank.frozen(f"{kind}{i}", (size, size), _normal(size, size))
            for i, (kind, size) in enumerate(zip("UUVV", self.modes, strict=True))
        ]
        self.core = bank.frozen("G", (out, n), _normal(out, n))
        self.first = nn.Parameter(torch.zeros(a))
        self.others = nn.ParameterList([nn.Parameter(torch.ones(size)) for size in self.modes[1:]])
        self.scale = alpha

    def update(self, base: Frozen) -> Format:  # noqa: ARG002
        a, b, c, d = [t().to(s.dtype) * s for t, s in zip(self.frozen, (self.first, *self.others), strict=True)]
        return Network("ai,bj,ijkl,ck,dl->(ab)(cd)", (a, b, self.core().to(a.dtype).view(self.modes), c, d))

    def few(self, x: Tensor) -> Tensor:
        (a, b, c, d), lead = self.modes, x.shape[:-1]
        lead = lead if x.numel() != c * d else ()  # one row is multiplied as matrices, which take half a batch's time
        diagonals = (self.first, *self.others)
        U1, U2, V1, V2 = ((t() * s).to(x.dtype) for t, s in zip(self.frozen, diagonals, strict=True))
        inner = V1.mT @ x.reshape(*lead, c, d) @ V2
        outer = F.linear(inner.flatten(-2), self.core().to(x.dtype)).view(*lead, a, b)
        return (U1 @ outer @ U2.mT).reshape(*x.shape[:-1], a * b)


def _normal(rows: int, columns: int) -> Callable[[Generator], Tensor]:
    """Draws normal numbers of variance 1 / columns."""

    def draw(generator: Generator) -> Tensor:
        return torch.randn(rows, columns, generator=generator) / columns**0.5

    return draw
