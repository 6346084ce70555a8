"""A chain of matrix products of formats."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, Self

import torch
from torch import Generator, Tensor

from polyad.formats._tree import below, merge_growth
from polyad.formats.format import Format
from polyad.formats.networks.low_rank import LowRank
from polyad.formats.stored.dense import Dense


@dataclass(frozen=True, eq=False, repr=False)
class Product(Format):
    """``W = factors[0] @ factors[1] @ …``: quantised low-rank factors, for example.

    ``linear`` applies the factors from the last to the first, so it costs the sum of what they cost.
    """

    factors: tuple[Format, ...]

    def __post_init__(self) -> None:
        if not self.factors:
            raise ValueError("factors is empty; give one format or more")
        for a, b in zip(self.factors, self.factors[1:], strict=False):
            if a.shape[-1] != b.shape[-2] or a.shape[:-2] != b.shape[:-2]:
                raise ValueError(
                    f"factors of shapes {a.shape} and {b.shape} cannot be multiplied: the columns of each must equal "
                    "the rows of the next, and leading batch dimensions must be the same"
                )

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.factors[0].shape[:-1], self.factors[-1].shape[-1])

    @property
    def dtype(self) -> torch.dtype:
        return reduce(torch.promote_types, [factor.dtype for factor in self.factors])

    def to_dense(self) -> Tensor:
        total = self.factors[-1].to_dense().to(self.dtype)
        for factor in reversed(self.factors[:-1]):
            total = factor.to_dense().to(self.dtype) @ total
        return total

    def linear(self, x: Tensor) -> Tensor:
        for factor in reversed(self.factors):
            x = factor.linear(x)
        return x

    def transpose(self) -> Product:
        return Product(tuple(factor.transpose() for factor in reversed(self.factors)))

    def rows(self, index: Tensor) -> Tensor:
        x = self.factors[0].rows(index).to(self.dtype)
        for factor in self.factors[1:]:
            x = factor.combine(x)
        return x

    def combine(self, weights: Tensor) -> Tensor:
        for factor in self.factors:
            weights = factor.combine(weights)
        return weights

    def growth(self) -> dict[str, int] | None:
        shared = [dict.fromkeys(factor.tensors(), 0) for factor in self.factors[1:]]
        return merge_growth("factors", [self.factors[0].growth(), *shared])

    def with_rows(self, tensors: dict[str, Tensor], rows: int) -> Self:
        first, *others = (below(tensors, f"factors.{i}.") for i in range(len(self.factors)))
        rest = [factor.replace(part) for factor, part in zip(self.factors[1:], others, strict=True)]
        return type(self)((self.factors[0].with_rows(first, rows), *rest))

    def select(self, index: Tensor) -> Product:
        return Product(tuple(factor.select(index) for factor in self.factors))

    def convolve(self, x: Tensor, kernel: tuple[int, ...], **geometry: Any) -> Tensor:
        if geometry.get("groups", 1) != 1:  # the first factors would mix what groups keep apart
            return super().convolve(x, kernel, **geometry)
        channels = -1 - len(kernel)  # counted from behind: x may come without a batch
        x = self.factors[-1].convolve(x, kernel, **geometry).movedim(channels, -1)
        for factor in reversed(self.factors[:-1]):
            x = factor.linear(x)
        return x.movedim(-1, channels)

    def flops(self, batch: int) -> int:
        return sum(factor.flops(batch) for factor in self.factors)

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        square = (*shape[:-1], shape[-2])
        first = LowRank.random(square, generator=generator, dtype=dtype)
        return cls((first, Dense.random(shape, generator=generator, dtype=dtype)))
