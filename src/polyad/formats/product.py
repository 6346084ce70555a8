"""A chain of matrix products of formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Generator, Tensor

from polyad.formats._format import Format
from polyad.formats.dense import Dense
from polyad.formats.low_rank import LowRank


@dataclass(frozen=True, eq=False, repr=False)
class Product(Format):
    """``W = factors[0] @ factors[1] @ …``: quantised low-rank factors, for example.

    ``linear`` applies the factors from the last to the first, so it costs the sum of what they cost.
    """

    factors: tuple[Format, ...]

    def __post_init__(self) -> None:
        for a, b in zip(self.factors, self.factors[1:], strict=False):
            if a.shape[-1] != b.shape[-2]:
                raise ValueError(f"factors of shapes {a.shape} and {b.shape} cannot be multiplied")

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.factors[0].shape[:-1], self.factors[-1].shape[-1])

    @property
    def dtype(self) -> torch.dtype:
        return self.factors[0].dtype

    def to_dense(self) -> Tensor:
        total = self.factors[-1].to_dense()
        for factor in reversed(self.factors[:-1]):
            total = factor.to_dense() @ total
        return total

    def linear(self, x: Tensor) -> Tensor:
        for factor in reversed(self.factors):
            x = factor.linear(x)
        return x

    def transpose(self) -> Product:
        return Product(tuple(factor.transpose() for factor in reversed(self.factors)))

    def rows(self, index: Tensor) -> Tensor:
        x = self.factors[0].rows(index)
        for factor in self.factors[1:]:
            x = factor.transpose().linear(x)
        return x

    def convolve(self, x: Tensor, kernel: tuple[int, ...], **geometry: Any) -> Tensor:
        x = self.factors[-1].convolve(x, kernel, **geometry).movedim(1, -1)
        for factor in reversed(self.factors[:-1]):
            x = factor.linear(x)
        return x.movedim(-1, 1)

    def flops(self, batch: int) -> int:
        return sum(factor.flops(batch) for factor in self.factors)

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        square = (*shape[:-1], shape[-2])
        first = LowRank.random(square, generator=generator, dtype=dtype)
        return cls((first, Dense.random(shape, generator=generator, dtype=dtype)))
