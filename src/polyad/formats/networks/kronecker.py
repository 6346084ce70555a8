"""Sums of Kronecker products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad.formats.networks.multilinear import Multilinear
from polyad.linalg import evenly, truncated_svd


@dataclass(frozen=True, eq=False, repr=False)
class Kronecker(Multilinear):
    """``W = Σ_k first[k] ⊗ second[k]``: first (*batch, K, a, c), second (*batch, K, b, d), W (*batch, a b, c d).

    A single product has K = 1. ``linear`` never forms W: a row costs the cheaper of 2 K (a c d + a b d) and
    2 K (b c d + a b c) operations. A sum of two puts their terms side by side; ``round`` finds the fewest that do.

    >>> one = Kronecker(torch.eye(2).unsqueeze(0), torch.ones(1, 3, 4))
    >>> one.shape, (one + one).rank, (one + one).round(tol=1e-6).rank
    ((6, 8), 2, 1)
    """

    matrix: ClassVar[bool] = True

    first: Tensor
    second: Tensor

    def __post_init__(self) -> None:
        if min(self.first.ndim, self.second.ndim) < 3 or self.first.shape[:-2] != self.second.shape[:-2]:
            raise ValueError(
                f"first of shape {tuple(self.first.shape)} and second of shape {tuple(self.second.shape)} must be "
                "(*batch, K, a, c) and (*batch, K, b, d) with one batch and one number of terms K; a single product "
                "of two matrices is Kronecker(first.unsqueeze(0), second.unsqueeze(0))"
            )

    @property
    def rank(self) -> int:
        """The number of terms."""
        return self.first.shape[-3]

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        return "kac,kbd->(ab)(cd)", (self.first, self.second)

    def with_operands(self, operands: Sequence[Tensor]) -> Self:
        return type(self)(*operands)

    def added_to(self, weight: Tensor, scale: float = 1.0) -> Tensor:
        (*_, a, c), (*_, b, d) = self.first.shape, self.second.shape
        total = weight.reshape(*weight.shape[:-2], a, b, c, d)
        for one, other in zip(self.first.unbind(-3), self.second.unbind(-3), strict=True):
            total = torch.addcmul(
                total, one.unsqueeze(-2).unsqueeze(-1), other.unsqueeze(-2).unsqueeze(-4), value=scale
            )
        return total.reshape(*total.shape[:-4], a * b, c * d)

    def transpose(self) -> Kronecker:
        return Kronecker(self.first.mT, self.second.mT)

    def rows(self, index: Tensor) -> Tensor:
        b = self.second.shape[-2]
        index = index.long()
        first, second = self.first[:, index // b], self.second[:, index % b]  # (K, …, c), (K, …, d)
        return torch.einsum("k...c,k...d->...cd", first, second).flatten(-2)

    def round(self, rank: int | None = None, *, tol: float | None = None) -> Kronecker:
        """The closest sum of ``rank`` terms, or of the fewest within the relative Frobenius error ``tol``.

        Exact in the sense of Van Loan and Pitsianis: the terms are the rows of two thin matrices whose product is
        rounded, in O(K² (a c + b d)) operations. Terms of the result are orthogonal, largest first.
        """
        _check.real("round", self)
        left, right = self.first.flatten(-2).mT, self.second.flatten(-2)  # (a c, K), (K, b d)
        work = torch.promote_types(left.dtype, torch.float32)
        (p, s), (q, t) = torch.linalg.qr(left.to(work)), torch.linalg.qr(right.mT.to(work))
        outer, inner = evenly(*truncated_svd(s @ t.mT, rank, tol=tol))
        first = (p @ outer).mT.unflatten(-1, self.first.shape[-2:])
        second = (inner @ q.mT).unflatten(-1, self.second.shape[-2:])
        return Kronecker(first.to(left.dtype).contiguous(), second.to(right.dtype).contiguous())

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """Two terms of normal factors; first's sides are the least divisors above 1 of the matrix's sides."""
        *lead, rows, columns = shape
        a, c = (next((k for k in range(2, n + 1) if n % k == 0), 1) for n in (rows, columns))
        first = torch.randn(*lead, 2, a, c, generator=generator, dtype=dtype)
        return cls(first, torch.randn(*lead, 2, rows // a, columns // c, generator=generator, dtype=dtype))
