"""Sums of outer products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from polyad.einsum import symbol
from polyad.formats.networks.multilinear import Multilinear


@dataclass(frozen=True, eq=False, repr=False)
class CP(Multilinear):
    """``X = Σ_r weights[r] · factors[0][:, r] ∘ factors[1][:, r] ∘ …``, the canonical polyadic format.

    ``factors[n]`` has shape (*batch, I_n, R), ``weights`` (*batch, R) or is None for ones. Stores R (Σ I_n + 1)
    numbers.

    >>> x = CP((torch.ones(3, 2), torch.ones(4, 2), torch.ones(5, 2)))
    >>> x.shape, x.rank, round(float((x + x)[0].norm()), 3)
    ((3, 4, 5), 2, 17.889)
    """

    no_round_because: ClassVar[str] = (
        "the best sum of fewer terms is not part of it, and may not exist; cp_als looks for one, and "
        "convert(x, Tucker) can be rounded"
    )

    factors: tuple[Tensor, ...]
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        lead: set[tuple[int, ...]] = {
            (*factor.shape[:-2], factor.shape[-1]) for factor in self.factors if factor.ndim >= 2
        }
        if self.weights is not None:
            lead.add(tuple(self.weights.shape))
        if not self.factors or len(lead) != 1 or any(factor.ndim < 2 for factor in self.factors):
            weights = None if self.weights is None else tuple(self.weights.shape)
            raise ValueError(
                f"factors of shapes {[tuple(f.shape) for f in self.factors]} and weights of shape {weights} do not "
                "agree: (*batch, I_n, R) and (*batch, R) are needed, with one batch and one R"
            )

    @property
    def rank(self) -> int:
        return self.factors[0].shape[-1]

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        r, n = symbol(0), len(self.factors)
        modes = [symbol(1 + i) for i in range(n)]
        terms = [mode + r for mode in modes] + ([] if self.weights is None else [r])
        weights = () if self.weights is None else (self.weights,)
        return f"{','.join(terms)}->{''.join(modes)}", (*self.factors, *weights)

    def with_operands(self, operands: Sequence[Tensor]) -> Self:
        if self.weights is None:
            return type(self)(tuple(operands))
        return type(self)(tuple(operands[:-1]), operands[-1])

    def transpose(self) -> CP:
        return CP((*self.factors[:-2], self.factors[-1], self.factors[-2]), self.weights)

    def rows(self, index: Tensor) -> Tensor:
        left = self.factors[0] if self.weights is None else self.factors[0] * self.weights
        return left[index] @ self.factors[1].mT

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """Normal factors and weights from 1 to 2; rank about half the smallest mode."""
        rank = max(1, min(shape) // 2)
        factors = tuple([torch.randn(n, rank, generator=generator, dtype=dtype) for n in shape])
        return cls(factors, 1 + torch.rand(rank, generator=generator, dtype=dtype))
