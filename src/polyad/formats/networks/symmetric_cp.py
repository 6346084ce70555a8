"""Sums of symmetric outer products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeGuard

import torch
from torch import Generator, Tensor

from polyad.formats.format import Format
from polyad.formats.networks.cp import CP

MOST_MODES = 10**5
"""The largest order: a shape is a tuple of so many numbers."""


@dataclass(frozen=True, eq=False, repr=False)
class SymmetricCP(Format):
    """``X = Σ_r weights[r] · a_r ∘ a_r ∘ …`` with ``order`` times the column a_r of one factor: a symmetric tensor.

    ``factor`` has shape (*batch, n, R), ``weights`` (*batch, R). All modes have size n. Stores R (n + 1) numbers,
    whatever the order. What leaves the symmetry (an index, a mode product) gives a ``CP``.

    >>> x = SymmetricCP(torch.tensor([[1.0], [2.0]]), torch.tensor([3.0]), 3)
    >>> x.shape, float(x.to_dense()[1, 1, 0]), (x + x).rank, float((x * x).to_dense()[1, 1, 0])
    ((2, 2, 2), 12.0, 2, 144.0)
    """

    no_round_because: ClassVar[str] = CP.no_round_because

    factor: Tensor
    weights: Tensor
    order: int

    def __post_init__(self) -> None:
        factor, weights = tuple(self.factor.shape), tuple(self.weights.shape)
        if len(factor) < 2 or weights != (*factor[:-2], factor[-1]) or not 1 <= self.order <= MOST_MODES:
            raise ValueError(
                f"factor of shape {factor}, weights of shape {weights} and order={self.order} do not agree: "
                f"(*batch, n, R), (*batch, R) and an order from 1 to {MOST_MODES} are needed"
            )

    @property
    def rank(self) -> int:
        return self.factor.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.factor.shape[:-2], *[self.factor.shape[-2]] * self.order)

    def cp(self) -> CP:
        """The same as a CP, all of whose factors are the one factor."""
        return CP((self.factor,) * self.order, self.weights)

    def to_dense(self) -> Tensor:
        return self.cp().to_dense()

    def linear(self, x: Tensor) -> Tensor:
        return self.cp().linear(x)

    def flops(self, batch: int) -> int:
        return self.cp().flops(batch)

    def rows(self, index: Tensor) -> Tensor:
        return self.cp().rows(index)

    def transpose(self) -> SymmetricCP:
        return self

    def __add__(self, other: Format) -> Format:
        """The sum; of this kind, with the ranks added, where ``other`` is and has the same shape and batch."""
        if self._alike(other):
            factor = torch.cat((self.factor, other.factor), -1)
            return SymmetricCP(factor, torch.cat((self.weights, other.weights), -1), self.order)
        return super().__add__(other)

    def __mul__(self, other: Any) -> SymmetricCP:
        """Times a number, or entry by entry times another of the same shape, with the ranks multiplied."""
        if not isinstance(other, Format):
            return SymmetricCP(self.factor, self.weights * other, self.order)
        if not self._alike(other):
            raise ValueError(
                f"{self!r} and {other!r} cannot be multiplied entry by entry: both must be symmetric, of one order "
                "and size; "
                "multiply their to_dense()"
            )
        factor = (self.factor.unsqueeze(-1) * other.factor.unsqueeze(-2)).flatten(-2)
        weights = (self.weights.unsqueeze(-1) * other.weights.unsqueeze(-2)).flatten(-2)
        return SymmetricCP(factor, weights, self.order)

    def inner(self, other: Format) -> Tensor:
        """The inner product over all modes with this or a multilinear kind, of shape (*batch)."""
        return self.cp().inner(other.cp() if isinstance(other, SymmetricCP) else other)

    def norm(self) -> Tensor:
        """The Frobenius norm, of shape (*batch); exact to half of the dtype's digits."""
        return self.cp().norm()

    def __getitem__(self, index: Any) -> CP:
        """The sub-tensor of these integers and slices."""
        return self.cp()[index]

    def entries(self, index: Tensor) -> Tensor:
        """Single entries at ``index`` of shape (*any, order)."""
        return self.cp().entries(index)

    def multiply(self, x: Tensor, mode: int) -> CP:
        """The product of one mode with a matrix (m, n) or a vector (n,)."""
        return self.cp().multiply(x, mode)

    def _alike(self, other: Format) -> TypeGuard[SymmetricCP]:
        return isinstance(other, SymmetricCP) and (other.order, other.factor.shape[:-1]) == (
            self.order,
            self.factor.shape[:-1],
        )

    @classmethod
    def fits(cls, shape: tuple[int, ...]) -> bool:
        return len(set(shape)) == 1

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """A normal factor and weights from 1 to 2; rank about half the size of the modes, which must be equal."""
        if not cls.fits(shape):
            raise ValueError(f"shape={shape} must have modes of one size; a symmetric tensor has no other")
        n = shape[0]
        rank = max(1, n // 2)
        factor = torch.randn(n, rank, generator=generator, dtype=dtype)
        weights = 1 + torch.rand(rank, generator=generator, dtype=dtype)
        return cls(factor, weights, len(shape))
