"""The interface of matrices each of whose entries is one of a few numbers, by a fixed pattern."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from polyad.formats.format import Format
from polyad.formats.networks.indexing import check_index


class Pattern(Format, abstract=True):
    """A matrix W[a, c] = numbers[…, place(a, c)]: a subspace of matrices, closed under all that acts entry by entry.

    A subclass gives ``numbers``, ``with_numbers``, ``place`` and ``counts`` besides what every format gives.
    """

    def numbers(self) -> Tensor:
        """The distinct numbers, (*batch, count)."""
        raise NotImplementedError

    def with_numbers(self, numbers: Tensor) -> Self:
        """The matrix of the same pattern with other numbers."""
        raise NotImplementedError

    def place(self, row: Tensor, column: Tensor) -> Tensor:
        """The place among ``numbers`` of the one at a row and a column; the two broadcast."""
        raise NotImplementedError

    def counts(self) -> Tensor:
        """The number of entries with each of the numbers, (count,), int64."""
        raise NotImplementedError

    def to_dense(self) -> Tensor:
        row, column = self._axes()
        return self.numbers()[..., self.place(row.unsqueeze(1), column)]

    def rows(self, index: Tensor) -> Tensor:
        row, column = self._axes()
        return self.numbers()[..., self.place(row[index].unsqueeze(-1), column)]

    def entries(self, index: Tensor) -> Tensor:
        """Single entries: ``index`` of shape (*any, 2) gives numbers of shape (*batch, *any)."""
        check_index(index, self.shape, len(self.shape) - 2)
        row, column = self._axes()
        return self.numbers()[..., self.place(row[index[..., 0]], column[index[..., 1]])]

    def __add__(self, other: Format) -> Format:
        """The sum, of the same kind where ``other`` is of the same pattern. Otherwise a ``Sum``."""
        if self._alike(other):
            return self.with_numbers(self.numbers() + other.numbers())  # pyright: ignore[reportAttributeAccessIssue]
        return super().__add__(other)

    def __mul__(self, other: Any) -> Self:
        """Times a number, or entry by entry times a matrix of the same pattern."""
        if not isinstance(other, Format):
            return self.with_numbers(self.numbers() * other)
        return self.with_numbers(self.numbers() * self._same(other).numbers())

    def inner(self, other: Format) -> Tensor:
        """The inner product ``Σ X Y`` over all entries with a matrix of the same pattern, of shape (*batch)."""
        return (self.numbers() * self._same(other).numbers() * self.counts()).sum(-1)

    def norm(self) -> Tensor:
        """The Frobenius norm, of shape (*batch)."""
        numbers = self.numbers()
        return torch.linalg.vector_norm(numbers * self.counts().to(numbers.dtype).sqrt(), dim=-1)

    def _axes(self) -> tuple[Tensor, Tensor]:
        n, m = self.shape[-2:]
        return torch.arange(n, device=self.device), torch.arange(m, device=self.device)

    def _alike(self, other: Any) -> bool:
        return (
            type(other) is type(self) and other.shape == self.shape and other.numbers().shape == self.numbers().shape
        )

    def _same(self, other: Any) -> Self:
        if not self._alike(other):
            raise ValueError(
                f"{self!r} and {other!r} have different patterns: both must be of one kind and shape, in the same "
                "blocks; convert one, or use their to_dense()"
            )
        return other
