"""Closed chains of three-way cores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad.einsum import symbol
from polyad.formats.networks.multilinear import Multilinear
from polyad.formats.networks.tensor_train import bond_ranks
from polyad.linalg import trains


@dataclass(frozen=True, eq=False, repr=False)
class TensorRing(Multilinear):
    """``X[i, j, …, k] = tr(cores[0][:, i] @ cores[1][:, j] @ … @ cores[-1][:, k])``: a ring, or periodic chain.

    ``cores[n]`` has shape (*batch, r_n, I_n, r_{n+1}) and the last bond is the first, r_N = r_0; ``rank`` is
    (r_0, …, r_{N-1}). A ring of one core has no bond and is (*batch, I_1). Stores Σ r_n I_n r_{n+1} numbers. With
    r_0 = 1 it is a ``TensorTrain``; shifting the modes in a circle shifts the cores, and the ranks with them.

    >>> x = TensorRing((torch.ones(2, 3, 3), torch.ones(3, 4, 2), torch.ones(2, 5, 2)))
    >>> x.shape, x.rank, (x * x).rank, x[:, 1].rank, x.shifted(1).shape
    ((3, 4, 5), (2, 3, 2), (4, 9, 4), (2, 2), (4, 5, 3))
    """

    cores: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        terms = self.network()[0].split("->")[0].split(",") if self.cores else []
        pairs = list(zip(self.cores, terms, strict=True))
        lead = {core.shape[: max(0, core.ndim - len(term))] for core, term in pairs}
        short = any(core.ndim < len(term) for core, term in pairs)
        torn = (
            not short
            and len(terms) > 1
            and [core.shape[-1] for core in self.cores]
            != [core.shape[-3] for core in (*self.cores[1:], self.cores[0])]
        )
        if short or torn or len(lead) != 1:
            raise ValueError(
                f"cores of shapes {[tuple(core.shape) for core in self.cores]} do not make a ring: "
                "(*batch, r_0, I_1, r_1), …, (*batch, r_{N-1}, I_N, r_0) are needed, or one of (*batch, I_1)"
            )

    @property
    def rank(self) -> tuple[int, ...]:
        return tuple([core.shape[-3] for core in self.cores]) if len(self.cores) > 1 else ()

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        n = len(self.cores)
        if n == 1:
            return f"{symbol(0)}->{symbol(0)}", self.cores
        bonds, modes = [symbol(i) for i in range(n)], [symbol(n + i) for i in range(n)]
        terms = [bonds[i] + modes[i] + bonds[(i + 1) % n] for i in range(n)]
        return f"{','.join(terms)}->{''.join(modes)}", self.cores

    def with_operands(self, operands: Sequence[Tensor]) -> Self:
        return type(self)(tuple(operands))

    def shifted(self, places: int) -> TensorRing:
        """The tensor whose first mode is this one's mode ``places``; the modes before it follow the last."""
        at = places % len(self.cores)
        return TensorRing((*self.cores[at:], *self.cores[:at]))

    def transpose(self) -> TensorRing:
        if len(self.shape) - self.batch != 2:
            raise ValueError(f"a ring of shape {self.shape} is no matrix; only a ring of two cores is transposed")
        return self.shifted(1)

    def rows(self, index: Tensor) -> Tensor:
        left = self.cores[0].movedim(1, 0)[index]  # (…, r_0, r_1)
        return left.flatten(-2) @ self.cores[1].movedim(-1, 0).flatten(0, 1)

    def round(self, rank: int | Sequence[int] | None = None, *, tol: float | None = None) -> TensorRing:
        """A ring of lower ranks that is close to this one.

        ``tol`` bounds the relative Frobenius error for certain, in a batch that of each; ``rank`` gives one number a
        bond, or one for all, and bonds that are smaller stay. The ring is opened at its smallest bond, rounded as the
        train of one more index at either end that it then is, and again opened elsewhere for the bond left out.
        Tracing r_0 pairs of ends can enlarge an error by √r_0, for which ``tol`` is lowered. So the ranks found
        are in general *not the least*, for which no such way is known, and of a sum of rings that are equal
        nothing is saved: ``convert(x, TensorTrain).round`` gives the best train, ``tr_als`` a ring of given ranks.
        Costs 4 Σ I r³ operations. Half precision is computed in float32.

        >>> a, b = torch.eye(2, 6), torch.eye(6, 2)
        >>> x = TensorRing((torch.ones(2, 3, 2) @ a, torch.tensordot(b, torch.ones(2, 4, 2), 1)))
        >>> x.rank, x.round(tol=1e-5).rank
        ((2, 6), (1, 1))
        """
        _check.real("round", self)
        _check.exactly_one(rank=rank, tol=tol)
        n = len(self.cores)
        if tol is not None:
            _check.tolerance(tol)
        ranks = None if rank is None else list(bond_ranks(rank, len(self.rank), f"{self!r}"))
        if n == 1:
            return self
        at = min(range(n), key=lambda i: self.rank[i])
        ring = self
        for step, share in ((at, 1 - 1 / n), (1, 1 / n)):
            ring = ring.shifted(step)
            ranks = None if ranks is None else [*ranks[step:], *ranks[:step]]
            ring = _round_as_train(ring, ranks, None if tol is None else tol * share)
        return ring.shifted(-at - 1)

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """Normal cores over √2, with bonds of 2."""
        if len(shape) == 1:
            return cls((torch.randn(shape, generator=generator, dtype=dtype),))
        return cls(tuple([torch.randn(2, n, 2, generator=generator, dtype=dtype) / 2**0.5 for n in shape]))


def _round_as_train(x: TensorRing, rank: Sequence[int] | None, tol: float | None) -> TensorRing:
    """Round all bonds but the first, as those of a train whose end cores have that bond's ends as further indices."""
    work = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    cores, r = [core.to(work) for core in x.cores], x.rank[0]
    first, last = cores[0].shape[-2], cores[-1].shape[-2]
    cores[0] = cores[0].flatten(-3, -2).unsqueeze(-3)
    cores[-1] = cores[-1].flatten(-2).unsqueeze(-1)
    if tol is not None:
        with torch.no_grad():
            whole = trains.train_norm(cores).double()
            share = torch.where(whole > 0, x.to(torch.float64).norm() / whole, 1) / r**0.5
        tol = tol * min(1.0, float(share.min()))
    cut = trains.round_train(cores, None if rank is None else rank[1:], tol)
    cut[0] = cut[0].squeeze(-3).unflatten(-2, (r, first))
    cut[-1] = cut[-1].squeeze(-1).unflatten(-1, (last, r))
    return TensorRing(tuple([core.to(x.dtype).contiguous() for core in cut]))
