"""Sums of column-wise Kronecker products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad.formats.networks.multilinear import Multilinear
from polyad.linalg import block_product_svd


@dataclass(frozen=True, eq=False, repr=False)
class KhatriRao(Multilinear):
    """``W[:, j] = Σ_k first[k, :, j] ⊗ second[k, :, j]``: first (*batch, K, a, m), second (*batch, K, b, m).

    W has shape (*batch, a b, m) and each of its columns, as a matrix of a by b, has rank at most K; a single
    product has K = 1. With ``by_rows`` W is the transpose of that, (*batch, m, a b). Stores K (a + b) m numbers,
    and its rank as a matrix may be full. ``linear`` takes the cheapest order for the rows given; for more than
    about K of them that is to multiply the columns out. A sum of two puts their terms side by side.

    >>> x = KhatriRao(torch.ones(1, 2, 5), torch.ones(1, 3, 5))
    >>> x.shape, x.transpose().shape, (x + x).rank
    ((6, 5), (5, 6), 2)
    """

    matrix: ClassVar[bool] = True

    first: Tensor
    second: Tensor
    by_rows: bool = False

    def __post_init__(self) -> None:
        first, second = self.first.shape, self.second.shape
        if min(len(first), len(second)) < 3 or (first[:-2], first[-1]) != (second[:-2], second[-1]):
            raise ValueError(
                f"first of shape {tuple(first)} and second of shape {tuple(second)} must be (*batch, K, a, m) and "
                "(*batch, K, b, m) with one batch, one number of terms K and one number of columns m"
            )

    @property
    def rank(self) -> int:
        """The number of terms."""
        return self.first.shape[-3]

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        return f"kaj,kbj->{'j(ab)' if self.by_rows else '(ab)j'}", (self.first, self.second)

    def with_operands(self, operands: Sequence[Tensor]) -> Self:
        return type(self)(operands[0], operands[1], self.by_rows)

    def added_to(self, weight: Tensor, scale: float = 1.0) -> Tensor:
        if self.by_rows:
            return super().added_to(weight, scale)
        (*_, a, m), b = self.first.shape, self.second.shape[-2]
        total = weight.reshape(*weight.shape[:-2], a, b, m)
        for one, other in zip(self.first.unbind(-3), self.second.unbind(-3), strict=True):
            total = torch.addcmul(total, one.unsqueeze(-2), other.unsqueeze(-3), value=scale)
        return total.flatten(-3, -2)

    def transpose(self) -> KhatriRao:
        return KhatriRao(self.first, self.second, not self.by_rows)

    def rows(self, index: Tensor) -> Tensor:
        index = index.long()
        if self.by_rows:
            first, second = self.first[..., index], self.second[..., index]
            return torch.einsum("ka...,kb...->...ab", first, second).flatten(-2)
        b = self.second.shape[-2]
        return (self.first[:, index // b] * self.second[:, index % b]).sum(0)

    def round(self, rank: int | None = None, *, tol: float | None = None) -> KhatriRao:
        """The closest sum of ``rank`` products, or of the fewest within the relative Frobenius error ``tol``.

        Optimal, since each column is a matrix of its own, cut to its leading singular triples: O(K² (a + b))
        operations each. Of a batch each is within ``tol``. A rank above the present one changes nothing.

        >>> x = KhatriRao(torch.ones(1, 2, 5), torch.ones(1, 3, 5))
        >>> (x + x).round(tol=1e-6).rank
        1
        """
        _check.real("round", self)
        _check.exactly_one(rank=rank, tol=tol)
        if rank is not None:
            rank = _check.rank(min(rank, self.rank), self.rank, "the rank that there is")
        if tol is not None:
            _check.tolerance(tol)
        columns = self.first.movedim(-3, -1).transpose(-3, -2), self.second.movedim(-1, -3)  # (*batch, m, a, K), …
        left, right = block_product_svd(columns[0].unsqueeze(-4), columns[1].unsqueeze(-4), rank, tol=tol)
        first = left.squeeze(-4).transpose(-3, -1).to(self.dtype).contiguous()
        return KhatriRao(first, right.squeeze(-4).movedim(-3, -1).to(self.dtype).contiguous(), self.by_rows)

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """Two normal terms; first has as many rows as the least divisor above 1 of the matrix's."""
        *lead, rows, columns = shape
        a = next((k for k in range(2, rows + 1) if rows % k == 0), 1)
        first = torch.randn(*lead, 2, a, columns, generator=generator, dtype=dtype)
        return cls(first, torch.randn(*lead, 2, rows // a, columns, generator=generator, dtype=dtype))
