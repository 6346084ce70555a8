"""Sums of Tucker terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad.einsum import symbol
from polyad.formats.format import Format
from polyad.formats.networks import arithmetic as _networks
from polyad.formats.networks.multilinear import Multilinear
from polyad.formats.networks.tucker import Tucker


@dataclass(frozen=True, eq=False, repr=False)
class BlockTerm(Multilinear):
    """``X = Σ_k core[k] ×₁ factors[0][k] ×₂ factors[1][k] …``, a block term decomposition.

    core has shape (*batch, K, r₁, …, r_N), factors[n] (*batch, K, I_n, r_n), X (*batch, I₁, …, I_N): K Tucker terms
    of the same multilinear ranks: K = 1 is a ``Tucker``, ranks of one a ``CP`` of rank K. Stores K (Π r_n + Σ I_n
    r_n) numbers. A sum of two has the terms of both, filled up with zeros to the greater ranks where these differ.

    >>> x = BlockTerm(torch.ones(1, 2, 2, 1), (torch.ones(1, 3, 2), torch.ones(1, 4, 2), torch.ones(1, 5, 1)))
    >>> x.shape, x.terms, x.rank, (x + x).terms, (x + x).rank
    ((3, 4, 5), 1, (2, 2, 1), 2, (2, 2, 1))
    """

    core: Tensor
    factors: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        n = len(self.factors)
        ranks = tuple(factor.shape[-1] for factor in self.factors)
        lead = {tuple(factor.shape[:-2]) for factor in self.factors} | {tuple(self.core.shape[: self.core.ndim - n])}
        if not n or tuple(self.core.shape[-n:]) != ranks or len(lead) != 1 or not next(iter(lead)):
            raise ValueError(
                f"core of shape {tuple(self.core.shape)} does not fit factors of shapes "
                f"{[tuple(f.shape) for f in self.factors]}: (*batch, K, r_1, …, r_N) and (*batch, K, I_n, r_n) are "
                "needed, with one number of terms K"
            )

    @property
    def terms(self) -> int:
        """The number of Tucker terms."""
        return self.factors[0].shape[-3]

    @property
    def rank(self) -> tuple[int, ...]:
        """The multilinear ranks that each term may have."""
        return tuple(self.core.shape[-len(self.factors) :])

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        n = len(self.factors)
        term, inner, outer = symbol(0), [symbol(1 + i) for i in range(n)], [symbol(1 + n + i) for i in range(n)]
        factors = [term + o + i for o, i in zip(outer, inner, strict=True)]
        return f"{term}{''.join(inner)},{','.join(factors)}->{''.join(outer)}", (self.core, *self.factors)

    def with_operands(self, operands: Sequence[Tensor]) -> Self:
        return type(self)(operands[0], tuple(operands[1:]))

    def __add__(self, other: Format) -> Format:
        """The sum: of two of the kind one with the terms of both."""
        if not isinstance(other, BlockTerm) or not _networks.are_alike(self, other):
            return super().__add__(other)
        ranks = tuple(max(a, b) for a, b in zip(self.rank, other.rank, strict=True))
        at = self.batch
        parts = zip(_pad_to_ranks(self, ranks), _pad_to_ranks(other, ranks), strict=True)
        return self.with_operands([torch.cat(pair, dim=at) for pair in parts])

    def term(self, k: int) -> Tucker:
        """The k-th term."""
        at = self.batch
        return Tucker(self.core.select(at, k), tuple(factor.select(at, k) for factor in self.factors))

    def transpose(self) -> BlockTerm:
        return BlockTerm(self.core.mT, (*self.factors[:-2], self.factors[-1], self.factors[-2]))

    def rows(self, index: Tensor) -> Tensor:
        inner = self.core @ self.factors[1].mT  # (K, r₁, columns)
        return torch.einsum("k...a,kac->...c", self.factors[0][:, index], inner)

    def round(self, rank: tuple[int, ...] | None = None, *, tol: float | None = None) -> BlockTerm:
        """Terms of at most these multilinear ranks, or the least found for a relative Frobenius error of ``tol``.

        Each term is rounded as ``Tucker.round`` does, the terms of a tensor to common ranks; terms are neither merged
        nor dropped. Their errors may add up, so each gets ``tol`` times the norm of X over the sum of the terms'
        norms: kept for certain, and much less than ``tol`` where terms cancel. ``convert(x, Tucker).round`` is
        the closest that one term comes.

        >>> x = BlockTerm(torch.ones(1, 2, 2, 1), (torch.ones(1, 3, 2), torch.ones(1, 4, 2), torch.ones(1, 5, 1)))
        >>> x.round(tol=1e-6).rank
        (1, 1, 1)
        """
        _check.real("round", self)
        terms = Tucker(self.core, self.factors)
        if tol is not None and rank is None:
            _check.tolerance(tol)
            with torch.no_grad():
                apart = terms.to(torch.float64).norm().sum(-1)
                share = self.to(torch.float64).norm() / torch.where(apart > 0, apart, 1)
            tol = tol * min(1.0, float(share.min()))
        smaller = terms.round(rank, tol=tol)
        return BlockTerm(smaller.core, smaller.factors)

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """Two normal terms of ranks about half of each mode, and at most 2."""
        rank = tuple(max(1, min(2, n // 2)) for n in shape)
        factors = tuple(
            torch.randn(2, n, r, generator=generator, dtype=dtype) for n, r in zip(shape, rank, strict=True)
        )
        return cls(torch.randn(2, *rank, generator=generator, dtype=dtype), factors)


def _pad_to_ranks(x: BlockTerm, ranks: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The operands, filled up with zeros to these ranks."""
    missing = [r - present for r, present in zip(ranks, x.rank, strict=True)]
    if not any(missing):
        return (x.core, *x.factors)
    pad = [n for more in reversed(missing) for n in (0, more)]
    factors = [torch.nn.functional.pad(f, (0, more)) for f, more in zip(x.factors, missing, strict=True)]
    return (torch.nn.functional.pad(x.core, pad), *factors)
