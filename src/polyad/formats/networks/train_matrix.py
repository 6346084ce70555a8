"""Chains of four-way cores that stand for a matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad.einsum import symbol
from polyad.formats.networks.multilinear import Multilinear
from polyad.formats.networks.tensor_train import TensorTrain


@dataclass(frozen=True, eq=False, repr=False)
class TrainMatrix(Multilinear):
    """A matrix whose rows and columns are split into modes, as a train over their pairs: a matrix product operator.

    ``W[(i₁ … i_N), (j₁ … j_N)] = cores[0][i₁, j₁] @ cores[1][:, i₂, j₂] @ … @ cores[-1][:, i_N, j_N]``, with cores of
    shapes (*batch, O₁, I₁, r₁), (*batch, r₁, O₂, I₂, r₂), …, (*batch, r_{N-1}, O_N, I_N). The matrix has Π O rows and
    Π I columns. Stores Σ r O I r' numbers; ``linear`` runs over the cores in the cheapest order, and multiplies with
    the dense matrix where forming that is the cheapest order.

    >>> w = TrainMatrix((torch.ones(2, 3, 2), torch.ones(2, 4, 5, 2), torch.ones(2, 3, 1)))
    >>> w.shape, w.rank, w.linear(torch.ones(7, 15)).shape, (w + w).rank
    ((24, 15), (2, 2), torch.Size([7, 24]), (4, 4))
    """

    matrix: ClassVar[bool] = True

    cores: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        terms = self.network()[0].split("->")[0].split(",") if self.cores else []
        lead = {core.shape[: max(0, core.ndim - len(term))] for core, term in zip(self.cores, terms, strict=True)}
        short = any(core.ndim < len(term) for core, term in zip(self.cores, terms, strict=True))
        bonds = [
            (a.shape[-1], b.shape[b.ndim - len(term)])
            for a, b, term in zip(self.cores, self.cores[1:], terms[1:], strict=False)
            if not short
        ]
        if short or len(lead) != 1 or any(r != s for r, s in bonds):
            raise ValueError(
                f"cores of shapes {[tuple(core.shape) for core in self.cores]} do not make a train matrix: "
                "(*batch, O_1, I_1, r_1), (*batch, r_1, O_2, I_2, r_2), …, (*batch, r_{N-1}, O_N, I_N) are needed"
            )

    @property
    def rank(self) -> tuple[int, ...]:
        return tuple([core.shape[-1] for core in self.cores[:-1]])

    @property
    def modes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The sizes of the modes into which rows and columns are split."""
        pairs = [core.shape[self.batch + (i > 0) :][:2] for i, core in enumerate(self.cores)]
        return tuple([o for o, _ in pairs]), tuple([i for _, i in pairs])

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        n = len(self.cores)
        bonds = [symbol(i) for i in range(n - 1)]
        out, into = [symbol(n - 1 + i) for i in range(n)], [symbol(2 * n - 1 + i) for i in range(n)]
        terms = ["".join((*bonds[max(0, i - 1) : i], out[i], into[i], *bonds[i : i + 1])) for i in range(n)]
        return f"{','.join(terms)}->({''.join(out)})({''.join(into)})", self.cores

    def with_operands(self, operands: Sequence[Tensor]) -> Self:
        return type(self)(tuple(operands))

    def transpose(self) -> TrainMatrix:
        first = self.batch
        return TrainMatrix(
            tuple([c.transpose(first + (i > 0), first + (i > 0) + 1) for i, c in enumerate(self.cores)])
        )

    def rows(self, index: Tensor) -> Tensor:
        """``W[index]``: the cores' slices at each digit of the index, multiplied from the left."""
        out, into = self.modes
        rest, flat = math.prod(out[1:]), index.reshape(-1).long()
        product = self.cores[0][flat // rest]  # (rows, I_1, r_1), then (rows, I_1 I_2, r_2) …
        for core, n, m in zip(self.cores[1:], out[1:], into[1:], strict=True):
            rest //= n
            taken = core.movedim(1, 0)[flat // rest % n].flatten(2)  # (rows, r, I s)
            product = (product @ taken).unflatten(2, (m, taken.shape[2] // m)).flatten(1, 2)
        return product.reshape(*index.shape, math.prod(into))

    def round(self, rank: int | Sequence[int] | None = None, *, tol: float | None = None) -> TrainMatrix:
        """A matrix of lower bonds that is close to this one: ``TensorTrain.round`` of its pairs of modes."""
        _check.real("round", self)
        return self._like(self.train().round(rank, tol=tol))

    def norm(self) -> Tensor:
        return self.train().norm()

    def train(self) -> TensorTrain:
        """The same numbers as a tensor train whose n-th mode is (O_n I_n)."""
        at = [self.batch + (i > 0) for i in range(len(self.cores))]
        return TensorTrain(tuple([core.flatten(k, k + 1) for core, k in zip(self.cores, at, strict=True)]))

    @classmethod
    def from_train(cls, train: TensorTrain, out: Sequence[int], into: Sequence[int]) -> Self:
        """The matrix whose pairs of modes (O_n I_n) are the modes of a train."""
        sizes = zip(train.cores, out, into, strict=True)
        return cls(tuple([c.unflatten(train.batch + (i > 0), (o, n)) for i, (c, o, n) in enumerate(sizes)]))

    def _like(self, train: TensorTrain) -> TrainMatrix:
        return TrainMatrix.from_train(train, *self.modes)

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """Normal cores over two or three pairs of modes, with bonds of at most 3; leading dimensions are a batch."""
        *lead, rows, columns = shape
        pairs = list(zip(equal_factors(rows, 2), equal_factors(columns, 2), strict=True))
        bonds = [min(3, math.prod(pairs[0]), math.prod(pairs[1]))]
        sizes = [(*lead, *pairs[0], *bonds), (*lead, *bonds, *pairs[1])]
        return cls(tuple([torch.randn(size, generator=generator, dtype=dtype) for size in sizes]))


def equal_factors(n: int, parts: int) -> tuple[int, ...]:
    """n as a product of ``parts`` factors as equal as may be, the largest first.

    >>> equal_factors(1024, 3), equal_factors(6, 2), equal_factors(7, 2)
    ((16, 8, 8), (3, 2), (7, 1))
    """
    factors = [1] * parts
    for prime in reversed(_primes(n)):
        factors[factors.index(min(factors))] *= prime
    return tuple(sorted(factors, reverse=True))


def _primes(n: int) -> list[int]:
    primes, p = [], 2
    while p * p <= n:
        while n % p == 0:
            primes.append(p)
            n //= p
        p += 1
    return [*primes, n] if n > 1 else primes
