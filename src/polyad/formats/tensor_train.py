"""Chains of three-way cores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor

from polyad.einsum import symbol
from polyad.formats._multilinear import _Multilinear


@dataclass(frozen=True, eq=False, repr=False)
class TensorTrain(_Multilinear):
    """``X[i, j, …, k] = cores[0][i] @ cores[1][:, j] @ … @ cores[-1][:, k]``: a train, or matrix product state.

    ``cores[0]`` has shape (*batch, I_1, r_1), ``cores[-1]`` (*batch, r_{N-1}, I_N) and those between
    (*batch, r_{n-1}, I_n, r_n): the ends have no bond of size one. A train of one core is (*batch, I_1). Stores
    Σ r_{n-1} I_n r_n numbers.

    >>> x = TensorTrain((torch.ones(3, 2), torch.ones(2, 4, 2), torch.ones(2, 5)))
    >>> x.shape, x.rank, (x * x).rank, x[:, 1].shape
    ((3, 4, 5), (2, 2), (4, 4), (3, 5))
    """

    cores: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        terms = self.network()[0].split("->")[0].split(",") if self.cores else []
        lead = {core.shape[: core.ndim - len(term)] for core, term in zip(self.cores, terms, strict=True)}
        bonds = [
            (a.shape[-1], b.shape[len(next(iter(lead)))]) for a, b in zip(self.cores, self.cores[1:], strict=False)
        ]
        if len(lead) != 1 or any(r != s for r, s in bonds):
            raise ValueError(
                f"cores of shapes {[tuple(core.shape) for core in self.cores]} do not make a train: "
                "(*batch, I_1, r_1), (*batch, r_1, I_2, r_2), …, (*batch, r_{N-1}, I_N) are needed"
            )

    @property
    def rank(self) -> tuple[int, ...]:
        return tuple([core.shape[-1] for core in self.cores[:-1]])

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        n = len(self.cores)
        bonds, modes = [symbol(i) for i in range(n - 1)], [symbol(n - 1 + i) for i in range(n)]
        terms = ["".join((*bonds[max(0, i - 1) : i], mode, *bonds[i : i + 1])) for i, mode in enumerate(modes)]
        return f"{','.join(terms)}->{''.join(modes)}", self.cores

    def rebuilt(self, operands: Sequence[Tensor]) -> Self:
        return type(self)(tuple(operands))

    def transpose(self) -> TensorTrain:
        if len(self.shape) - self.batch != 2:
            raise ValueError(f"a train of shape {self.shape} is no matrix; only a train of two cores is transposed")
        return TensorTrain((self.cores[1].mT, self.cores[0].mT))

    def rows(self, index: Tensor) -> Tensor:
        return self.cores[0][index] @ self.cores[1]

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """Normal cores, of ranks about half of what the shape allows and at most 4."""
        allowed = [min(math.prod(shape[:i]), math.prod(shape[i:])) for i in range(1, len(shape))]
        ranks = [min(4, (n + 1) // 2) for n in allowed]
        sizes = [(*ranks[max(0, i - 1) : i], n, *ranks[i : i + 1]) for i, n in enumerate(shape)]
        return cls(tuple([torch.randn(size, generator=generator, dtype=dtype) for size in sizes]))
