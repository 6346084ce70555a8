"""Chains of three-way cores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad.einsum import symbol
from polyad.formats.networks.multilinear import Multilinear
from polyad.linalg import trains


@dataclass(frozen=True, eq=False, repr=False)
class TensorTrain(Multilinear):
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

    def with_operands(self, operands: Sequence[Tensor]) -> Self:
        return type(self)(tuple(operands))

    def transpose(self) -> TensorTrain:
        if len(self.shape) - self.batch != 2:
            raise ValueError(f"a train of shape {self.shape} is no matrix; only a train of two cores is transposed")
        return TensorTrain((self.cores[1].mT, self.cores[0].mT))

    def rows(self, index: Tensor) -> Tensor:
        return self.cores[0][index] @ self.cores[1]

    def norm(self) -> Tensor:
        """The Frobenius norm, of shape (*batch), to the dtype's digits; long trains overflow nowhere on the way."""
        return trains.train_norm(self.three_way()).to(self.cores[0].real.dtype)

    def orthogonalised(self, centre: int = 0) -> TensorTrain:
        """The same tensor with orthonormal cores: to the left before ``centre``, to the right behind it.

        The centre carries the norm. Costs a QR decomposition of each other core, about 4 Σ I r³ operations. Gradients
        need unfoldings of full rank.
        """
        n = len(self.cores)
        if not -n <= centre < n:
            raise IndexError(
                f"centre={centre} is out of range for the {n} cores of {self!r}; choose from {-n} to {n - 1}"
            )
        return type(self).from_three_way(trains.orthogonalise_train(self.three_way(), centre % n), self)

    def round(self, rank: int | Sequence[int] | None = None, *, tol: float | None = None) -> TensorTrain:
        """A train of lower ranks that is close to this one.

        ``tol`` takes the least rank at each bond with which the relative Frobenius error stays below it; a batch
        takes the largest rank that one of its trains needs. ``rank`` gives one number a bond, or one for all, and
        bonds that are smaller stay. The error is then at most √(bonds) times the least possible. Costs 2 Σ I r³
        operations for the triangular factors and truncated SVDs of matrices (r, I r'), r' being the rank found.
        Roundings add a few epsilons of the dtype; a ``tol`` below two of them counts as two. Half precision is
        computed in float32. Gradients flow, also at deficient ranks.

        >>> x = TensorTrain.random((6, 5, 4, 6), generator=torch.Generator().manual_seed(0))
        >>> (x + x).rank, (x + x).round(tol=1e-5).rank == x.rank
        ((6, 8, 6), True)
        """
        _check.exactly_one(rank=rank, tol=tol)
        if tol is not None:
            _check.tolerance(tol)
        bonds = len(self.cores) - 1
        ranks = None if rank is None else bond_ranks(rank, bonds, f"{self!r}")
        return type(self).from_three_way(trains.round_train(self.three_way(), ranks, tol), self)

    def three_way(self) -> list[Tensor]:
        """The cores as (*batch, r, I, s), with bonds of size one at both ends, in single or double precision."""
        work = torch.promote_types(self.dtype, torch.float32)
        cores = [core.to(work) for core in self.cores]
        cores[0] = cores[0].unsqueeze(self.batch)
        cores[-1] = cores[-1].unsqueeze(-1)
        return cores

    @classmethod
    def from_three_way(cls, cores: Sequence[Tensor], like: Tensor | TensorTrain) -> Self:
        """The train of cores (*batch, r, I, s) whose outer bonds are of size one, in the dtype of ``like``."""
        converted = [core.to(like.dtype) for core in cores]
        converted[0] = converted[0].squeeze(-3)
        converted[-1] = converted[-1].squeeze(-1)
        return cls(tuple([core.contiguous() for core in converted]))

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """Normal cores, of ranks about half of what the shape allows and at most 4."""
        allowed = [min(math.prod(shape[:i]), math.prod(shape[i:])) for i in range(1, len(shape))]
        ranks = [min(4, (n + 1) // 2) for n in allowed]
        sizes = [(*ranks[max(0, i - 1) : i], n, *ranks[i : i + 1]) for i, n in enumerate(shape)]
        return cls(tuple([torch.randn(size, generator=generator, dtype=dtype) for size in sizes]))


def bond_ranks(rank: int | Sequence[int], bonds: int, what: str) -> tuple[int, ...]:
    """The rank of each bond, from one number for all or one for each; numbers below 1 are refused."""
    if isinstance(rank, int):
        return (_check.at_least("rank", rank, 1),) * bonds
    if len(rank) != bonds:
        raise ValueError(f"rank={rank} must be one number, or one for each of the {bonds} bonds of {what}")
    return tuple([_check.at_least(f"rank[{i}]", r, 1) for i, r in enumerate(rank)])
