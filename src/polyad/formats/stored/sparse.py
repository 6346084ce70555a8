"""A few values and where they stand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Generator, Tensor

from polyad.formats.format import Format
from polyad.formats.stored.dense import convolve, dense_product
from polyad.formats.stored.packing import pack, unpack

GATHER_BELOW = 1 / 128
"""Density under which ``linear`` gathers and adds; above it a temporary dense product is faster."""


@dataclass(frozen=True, eq=False, repr=False)
class Sparse(Format):
    """``values`` of shape (nnz,) in row-major order; every other entry of the tensor of shape ``size`` is zero.

    ``where`` is either a bit per entry (uint8, packed) or a flat int32 or int64 index per value: ``from_dense``
    takes what is smaller. Indices count as bytes, never as parameters.
    """

    values: Tensor
    where: Tensor
    size: tuple[int, ...]

    @classmethod
    def from_dense(cls, x: Tensor, mask: Tensor | None = None) -> Sparse:
        """The entries of ``x`` where ``mask`` is true (by default where x is not zero)."""
        keep = (x != 0 if mask is None else mask.expand_as(x)).reshape(-1)
        index = keep.nonzero().squeeze(1)
        narrow = torch.int32 if keep.numel() < 2**31 else torch.int64
        wide = index.numel() * narrow.itemsize > -(-keep.numel() // 8)
        where = pack(keep.to(torch.uint8), 1) if wide else index.to(narrow)
        return cls(x.reshape(-1)[index], where, tuple(x.shape))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    def index(self) -> Tensor:
        """Flat positions of the values, int64, shape (nnz,)."""
        if self.where.dtype != torch.uint8:
            return self.where.long()
        return torch.nonzero_static(self._mask(), size=self.values.numel()).squeeze(1)  # tracers know this size

    def refuse_places(self) -> None:
        """Refuse places beyond the tensor, or of another count than the values; for what was read from a file."""
        count, places = math.prod(self.size), self.where
        packed = places.dtype == torch.uint8
        fit = int(self._mask().sum()) if packed else places.numel()
        inside = packed or not places.numel() or (int(places.min()) >= 0 and int(places.max()) < count)
        if fit != self.values.numel() or not inside:
            raise ValueError(
                f"the places of {self.values.numel()} values do not fit a tensor of shape {self.size}; the file is "
                "damaged: copy it again"
            )

    def scatter(self, dtype: torch.dtype) -> Tensor:
        """The tensor with its zeros, in ``dtype``."""
        flat = torch.zeros(math.prod(self.size), dtype=dtype, device=self.values.device)
        values = self.values.to(dtype)
        if self.where.dtype == torch.uint8:
            return flat.masked_scatter(self._mask(), values).reshape(self.size)
        return flat.scatter(0, self.where.long(), values).reshape(self.size)

    def to_dense(self) -> Tensor:
        return self.scatter(self.values.dtype)

    def linear(self, x: Tensor) -> Tensor:
        if not self._gathers():
            return dense_product(self.scatter(x.dtype), x)
        out, n = self.size
        index = self.where.long()
        terms = x[..., index % n] * self.values.to(x.dtype)
        return x.new_zeros(*x.shape[:-1], out).index_add(-1, index // n, terms)

    def combine(self, weights: Tensor) -> Tensor:
        return weights @ self.scatter(weights.dtype)

    def convolve(self, x: Tensor, kernel: tuple[int, ...], **geometry: Any) -> Tensor:
        return convolve(x, self.scatter(x.dtype), kernel, **geometry)

    def transpose(self) -> Sparse:
        order = torch.arange(math.prod(self.size), device=self.values.device).reshape(self.size).mT.reshape(-1)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        index, by = place[self.index()].sort()
        where: Tensor = index.to(self.where.dtype)
        if self.where.dtype == torch.uint8:
            where = pack(torch.zeros_like(order, dtype=torch.uint8).scatter_(0, index, 1), 1)
        return Sparse(self.values[by], where, (*self.size[:-2], self.size[-1], self.size[-2]))

    def rows(self, index: Tensor) -> Tensor:
        n, m = self.size
        chosen = torch.arange(n, device=index.device)[index].reshape(-1)  # refuses what lies past the end
        count = self.values.numel()
        if count == 0:
            return self.values.new_zeros(*index.shape, m)
        if self.where.dtype == torch.uint8:
            mask = self._mask().reshape(n, m)
            ends = mask.sum(1).cumsum(0)
            there = mask[chosen]
            place = there.cumsum(1) - 1 + (ends - mask.sum(1))[chosen].unsqueeze(1)
        else:
            sought = chosen.unsqueeze(1) * m + torch.arange(m, device=index.device)
            place = torch.searchsorted(self.index(), sought).clamp_max(count - 1)
            there = self.index()[place] == sought
        values = torch.where(there, self.values[place.clamp(0, count - 1)], 0)
        return values.reshape(*index.shape, m)

    def select(self, index: Tensor) -> Sparse:
        places = torch.zeros(math.prod(self.size), dtype=torch.bool, device=self.values.device)
        mask = places.index_fill(0, self.index(), True).reshape(self.size)
        return Sparse.from_dense(self.to_dense()[index], mask[index])

    def flops(self, batch: int) -> int:
        return 2 * batch * (self.values.numel() if self._gathers() else math.prod(self.size))

    def _gathers(self) -> bool:
        few = self.values.numel() < GATHER_BELOW * math.prod(self.size)
        return few and len(self.size) == 2 and self.where.dtype != torch.uint8

    def _mask(self) -> Tensor:
        return unpack(self.where, 1, math.prod(self.size)).bool()

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        x = torch.randn(shape, generator=generator, dtype=dtype)
        sparse = cls.from_dense(x, torch.rand(shape, generator=generator) < 0.3)
        return cls(sparse.values, sparse.where, sparse.size)
