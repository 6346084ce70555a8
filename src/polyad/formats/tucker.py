"""A small core and one matrix a mode."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor

from polyad.formats._multilinear import _Multilinear


@dataclass(frozen=True, eq=False, repr=False)
class Tucker(_Multilinear):
    """``X = core ×₁ factors[0] ×₂ factors[1] …``: core of shape (r₁, …, r_N), factors[n] of shape (I_n, r_n)."""

    core: Tensor
    factors: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        ranks = tuple(factor.shape[1] for factor in self.factors)
        if tuple(self.core.shape) != ranks:
            raise ValueError(f"core of shape {tuple(self.core.shape)} does not fit factors of ranks {ranks}")

    @property
    def rank(self) -> tuple[int, ...]:
        return tuple(self.core.shape)

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        n = len(self.factors)
        inner, outer = string.ascii_lowercase[:n], string.ascii_uppercase[:n]
        pairs = ",".join(o + i for o, i in zip(outer, inner, strict=True))
        return f"{inner},{pairs}->{outer}", (self.core, *self.factors)

    def transpose(self) -> Tucker:
        order = (*range(self.core.ndim - 2), self.core.ndim - 1, self.core.ndim - 2)
        return Tucker(self.core.mT, tuple(self.factors[i] for i in order))

    def rows(self, index: Tensor) -> Tensor:
        return self.factors[0][index] @ self.core @ self.factors[1].mT

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        rank = tuple(max(1, n // 2) for n in shape)
        factors = tuple(torch.randn(n, r, generator=generator, dtype=dtype) for n, r in zip(shape, rank, strict=True))
        return cls(torch.randn(rank, generator=generator, dtype=dtype), factors)
