"""A small core and one matrix a mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor

from polyad.einsum import symbol
from polyad.formats._multilinear import _Multilinear


@dataclass(frozen=True, eq=False, repr=False)
class Tucker(_Multilinear):
    """``X = core ×₁ factors[0] ×₂ factors[1] …``: core of shape (*batch, r₁, …, r_N), factors[n] (*batch, I_n, r_n).

    >>> x = Tucker(torch.ones(2, 2, 2), (torch.ones(3, 2), torch.ones(4, 2), torch.ones(5, 2)))
    >>> x.shape, x[0].rank, round(float(x.norm()), 3)
    ((3, 4, 5), (2, 2), 61.968)
    """

    core: Tensor
    factors: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        n = len(self.factors)
        ranks = tuple(factor.shape[-1] for factor in self.factors)
        lead = {tuple(factor.shape[:-2]) for factor in self.factors} | {tuple(self.core.shape[: self.core.ndim - n])}
        if not n or tuple(self.core.shape[-n:]) != ranks or len(lead) != 1:
            raise ValueError(
                f"core of shape {tuple(self.core.shape)} does not fit factors of shapes "
                f"{[tuple(f.shape) for f in self.factors]}: (*batch, r_1, …, r_N) and (*batch, I_n, r_n) are needed"
            )

    @property
    def rank(self) -> tuple[int, ...]:
        return tuple(self.core.shape[-len(self.factors) :])

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        n = len(self.factors)
        inner, outer = [symbol(i) for i in range(n)], [symbol(n + i) for i in range(n)]
        pairs = [o + i for o, i in zip(outer, inner, strict=True)]
        return f"{''.join(inner)},{','.join(pairs)}->{''.join(outer)}", (self.core, *self.factors)

    def rebuilt(self, operands: Sequence[Tensor]) -> Self:
        return type(self)(operands[0], tuple(operands[1:]))

    def transpose(self) -> Tucker:
        return Tucker(self.core.mT, (*self.factors[:-2], self.factors[-1], self.factors[-2]))

    def rows(self, index: Tensor) -> Tensor:
        return self.factors[0][index] @ self.core @ self.factors[1].mT

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        rank = tuple(max(1, n // 2) for n in shape)
        factors = tuple(torch.randn(n, r, generator=generator, dtype=dtype) for n, r in zip(shape, rank, strict=True))
        return cls(torch.randn(rank, generator=generator, dtype=dtype), factors)
