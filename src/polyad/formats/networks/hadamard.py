"""Products, entry by entry, of low-rank matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor

from polyad.einsum import symbol
from polyad.formats.networks.low_rank import LowRank
from polyad.formats.networks.multilinear import Multilinear


@dataclass(frozen=True, eq=False, repr=False)
class Hadamard(Multilinear):
    """``W = (lefts[0] @ rights[0]) * (lefts[1] @ rights[1]) * …``, low-rank matrices multiplied entry by entry.

    lefts[i] has shape (*batch, n, r_i), rights[i] (*batch, r_i, m), W (*batch, n, m). It is of rank up to Π r_i with
    Σ r_i (n + m) numbers, where a ``LowRank`` of that rank stores Π r_i (n + m). ``linear`` takes the cheapest order
    for the rows given: for many rows that is to multiply the products out to n by m and apply the result, for few it
    is the low-rank matrix of all pairs of columns. A product with another of its kind puts their factors side by
    side; the sum of two is a ``Sum``.

    >>> x = Hadamard((torch.ones(4, 2), torch.ones(4, 3)), (torch.ones(2, 5), torch.ones(3, 5)))
    >>> x.shape, x.rank, x.low_rank().rank, (x * x).rank
    ((4, 5), (2, 3), 6, (2, 3, 2, 3))
    """

    matrix: ClassVar[bool] = True
    no_round_because: ClassVar[str] = (
        "what is cut from one factor is multiplied by all others; low_rank().round gives the closest matrix of low "
        "rank, and hadamard_als looks for a smaller product"
    )

    lefts: tuple[Tensor, ...]
    rights: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        fits = bool(self.lefts) and len(self.lefts) == len(self.rights)
        fits = fits and all(t.ndim >= 2 for t in (*self.lefts, *self.rights))
        lead = (
            {(left.shape[:-1], right.shape[:-2], right.shape[-1]) for left, right in self._pairs()} if fits else set()
        )
        if len(lead) != 1 or any(
            left.shape[-1] != right.shape[-2] or left.shape[:-2] != right.shape[:-2] for left, right in self._pairs()
        ):
            raise ValueError(
                f"lefts of shapes {[tuple(t.shape) for t in self.lefts]} and rights of shapes "
                f"{[tuple(t.shape) for t in self.rights]} do not agree: pairs (*batch, n, r_i) and (*batch, r_i, m) "
                "are needed, with one batch, one n and one m"
            )

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.lefts, self.rights, strict=True))

    @property
    def rank(self) -> tuple[int, ...]:
        return tuple([left.shape[-1] for left in self.lefts])

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        row, column = symbol(0), symbol(1)
        bonds = [symbol(2 + i) for i in range(len(self.lefts))]
        terms = [row + bond for bond in bonds] + [bond + column for bond in bonds]
        return f"{','.join(terms)}->{row}{column}", (*self.lefts, *self.rights)

    def with_operands(self, operands: Sequence[Tensor]) -> Self:
        half = len(operands) // 2
        return type(self)(tuple(operands[:half]), tuple(operands[half:]))

    def __mul__(self, other: Any) -> Self:
        """Times a number, or entry by entry times another of its kind: their factors side by side."""
        if isinstance(other, Hadamard) and other.shape == self.shape and other.batch == self.batch:
            return type(self)(self.lefts + other.lefts, self.rights + other.rights)
        return super().__mul__(other)

    def transpose(self) -> Hadamard:
        return Hadamard(tuple([t.mT for t in self.rights]), tuple([t.mT for t in self.lefts]))

    def rows(self, index: Tensor) -> Tensor:
        product = self.lefts[0][index] @ self.rights[0]
        for left, right in self._pairs()[1:]:
            product = product * (left[index] @ right)
        return product

    def low_rank(self) -> LowRank:
        """The same matrix as one product of rank Π r_i: columns are products of columns, one of each factor."""
        left, right = self.lefts[0], self.rights[0]
        for other, across in self._pairs()[1:]:
            left = (left.unsqueeze(-1) * other.unsqueeze(-2)).flatten(-2)
            right = (right.unsqueeze(-2) * across.unsqueeze(-3)).flatten(-3, -2)
        return LowRank(left, right)

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """Two normal factors of rank about the root of half the shorter side."""
        *lead, n, m = shape
        rank = max(1, round((min(n, m) / 2) ** 0.5))
        lefts = tuple([torch.randn(*lead, n, rank, generator=generator, dtype=dtype) for _ in range(2)])
        return cls(lefts, tuple([torch.randn(*lead, rank, m, generator=generator, dtype=dtype) for _ in range(2)]))
