"""A sum of formats."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor

from polyad.formats._tree import below, merge_growth
from polyad.formats.format import Format
from polyad.formats.networks.low_rank import LowRank
from polyad.formats.stored.dense import Dense


@dataclass(frozen=True, eq=False, repr=False)
class Sum(Format):
    """``W = terms[0] + terms[1] + …``, all of one shape: a quantised weight and its correction, for example."""

    no_round_because: ClassVar[str] = (
        "its terms have ranks of their own; convert it to one kind, or round them one by one"
    )

    terms: tuple[Format, ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("terms is empty; give one format or more")
        shapes = {term.shape for term in self.terms}
        if len(shapes) != 1:
            raise ValueError(f"terms have the shapes {sorted(shapes)}; a sum needs terms of one shape")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.terms[0].shape

    @property
    def dtype(self) -> torch.dtype:
        return reduce(torch.promote_types, [term.dtype for term in self.terms])

    def to_dense(self) -> Tensor:
        total = self.terms[0].to_dense().to(self.dtype)
        for term in self.terms[1:]:
            total = total + term.to_dense()
        return total

    def linear(self, x: Tensor) -> Tensor:
        total = self.terms[0].linear(x)
        for term in self.terms[1:]:
            total = total + term.linear(x)
        return total

    def transpose(self) -> Sum:
        return Sum(tuple(term.transpose() for term in self.terms))

    def rows(self, index: Tensor) -> Tensor:
        total = self.terms[0].rows(index).to(self.dtype)
        for term in self.terms[1:]:
            total = total + term.rows(index)
        return total

    def combine(self, weights: Tensor) -> Tensor:
        total = self.terms[0].combine(weights)
        for term in self.terms[1:]:
            total = total + term.combine(weights)
        return total

    def growth(self) -> dict[str, int] | None:
        return merge_growth("terms", [term.growth() for term in self.terms])

    def with_rows(self, tensors: dict[str, Tensor], rows: int) -> Self:
        parts = [below(tensors, f"terms.{i}.") for i in range(len(self.terms))]
        return type(self)(tuple(term.with_rows(part, rows) for term, part in zip(self.terms, parts, strict=True)))

    def select(self, index: Tensor) -> Sum:
        return Sum(tuple(term.select(index) for term in self.terms))

    def convolve(self, x: Tensor, kernel: tuple[int, ...], **geometry: Any) -> Tensor:
        total = self.terms[0].convolve(x, kernel, **geometry)
        for term in self.terms[1:]:
            total = total + term.convolve(x, kernel, **geometry)
        return total

    def flops(self, batch: int) -> int:
        out = self.shape[-2]
        return sum(term.flops(batch) for term in self.terms) + batch * out * (len(self.terms) - 1)

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        kinds = (Dense, LowRank)
        return cls(tuple(kind.random(shape, generator=generator, dtype=dtype) for kind in kinds))
