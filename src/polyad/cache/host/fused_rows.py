"""Codes that lie beside their scale and minimum, so that weighted sums read them where they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad.cache.host.row_sums import SUMS, readable, sum_kernel, sum_order
from polyad.formats import Format, Product, Quantized, Sum
from polyad.formats.stored.dense import dense_product
from polyad.formats.stored.packing import pack, packed_length, unpack

TAIL = 4
"""Bytes behind the codes of a group: a scale and a minimum in float16."""
FEW = 16
"""Up to this many sums of the same rows are read from codes, once for each; for more the rows are restored once."""
_READ = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False, repr=False)
class FusedRows(Format):
    """``W = code * scale + minimum`` for codes of 1 to 8 bits, each ``group`` of which has its two numbers behind it.

    A matrix (*batch, n, m) is stored in rows of bytes: ``packed`` is (*batch, n, m / group * bytes) with groups along
    the rows of W, and (*batch, n / group, m * bytes) with ``down``, for groups along its columns. In this order torch
    has sums of rows for 2 and 4 bits on processors of the x86 family, which restore no row: ``combine`` uses them, or
    ``linear`` with ``down``, for few float32 rows at a time. All else restores W first.

    >>> from polyad.quantize import round_to_nearest
    >>> x = torch.linspace(-1, 1, 128).reshape(1, 2, 64)
    >>> made = fuse_rows(round_to_nearest(x, 4, group=64, zero_dtype=torch.float16))
    >>> made.shape, made.nbytes, bool((made.to_dense() - x).abs().max() < 0.04)
    ((1, 2, 64), 72, True)
    """

    packed: Tensor
    bits: int
    group: int
    down: bool = False
    nominal: torch.dtype = torch.float32

    no_round_because: ClassVar[str] = "it holds codes, not factors"

    def __post_init__(self) -> None:
        _check.bits(self.bits)
        if self.packed.dtype != torch.uint8 or self.packed.shape[-1] % self._width:
            raise ValueError(
                f"packed of {self.packed.dtype} and shape {tuple(self.packed.shape)} does not hold rows of "
                f"{self.group} codes of {self.bits} bits, which take {self._width} bytes of uint8 each"
            )

    @property
    def _width(self) -> int:
        return packed_length(self.group, self.bits) + TAIL

    @property
    def shape(self) -> tuple[int, ...]:
        *batch, rows, wide = self.packed.shape
        groups = wide // self._width
        return (*batch, rows * self.group, groups) if self.down else (*batch, rows, groups * self.group)

    @property
    def dtype(self) -> torch.dtype:
        return self.nominal

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)

    def to_dense(self) -> Tensor:
        return self._dense(self.nominal)

    def _dense(self, dtype: torch.dtype) -> Tensor:
        groups = self._restore(dtype)
        return groups.mT.flatten(-3, -2) if self.down else groups.flatten(-2)

    def _restore(self, dtype: torch.dtype) -> Tensor:
        """The numbers of every group, in the order in which they are stored."""
        parted = self.packed.unflatten(-1, (-1, self._width))
        tail = parted[..., -TAIL:].clone(memory_format=torch.contiguous_format)
        scale, least = tail.view(torch.float16).to(dtype).unsqueeze(-2).unbind(-1)
        return torch.addcmul(least, unpack(parted[..., :-TAIL], self.bits, self.group).to(dtype), scale)

    def linear(self, x: Tensor) -> Tensor:
        if self.down and self._reads(x):
            return self._sums(x, self.packed.shape[-2])
        if self.down and x.ndim == self.packed.ndim > 2:  # block by block, so that none is turned
            return (x.unsqueeze(-3) @ self._restore(x.dtype)).transpose(-3, -2).flatten(-2)
        return dense_product(self._dense(x.dtype), x)

    def combine(self, weights: Tensor) -> Tensor:
        if self.down or not self._reads(weights):
            return weights @ self._dense(weights.dtype)
        return self._sums(weights, self.packed.shape[-1] // self._width)

    def _reads(self, x: Tensor) -> bool:
        sizes = self._readable
        few = bool(sizes) and x.shape[:-2] == sizes and 0 < x.shape[-2] <= FEW
        return few and x.dtype in _READ and not x.requires_grad

    @cached_property
    def _readable(self) -> tuple[int, ...]:
        """The batch's sizes if there is a batch and sums can be read from its codes, or nothing."""
        can = self.bits in SUMS and self.device.type == "cpu" and readable()
        return tuple(self.packed.shape[:-2]) if can else ()

    @cached_property
    def _table(self) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
        """The rows of bytes under each other, and sizes and strides in rows of the dimensions."""
        width, packed = self._width, self.packed
        if packed.stride(-1) != 1 or any(stride % width for stride in packed.stride()[:-1]):
            packed = packed.contiguous()
        lines = [(n, stride // width) for n, stride in zip(packed.shape, packed.stride(), strict=True)][:-1]
        lines.append((packed.shape[-1] // width, 1))
        last = sum((n - 1) * stride for n, stride in lines)
        return packed.as_strided((last + 1, width), (width, 1)), tuple(lines)

    def _sums(self, weights: Tensor, groups: int) -> Tensor:
        """Sums (*batch, sums, groups * group) of rows of bytes, for weights (*batch, sums, terms) of every group."""
        table, lines = self._table
        index, starts = sum_order(lines, weights.shape[-2], self.down)
        repeated = weights if groups == 1 else weights.unsqueeze(-2).expand(*weights.shape[:-1], groups, -1)
        flat = repeated.to(torch.float32).reshape(-1).contiguous()  # of one term, what is expanded stays a view
        sums = sum_kernel(self.bits)(table, index, starts, False, 0, False, flat, None, False)
        if sums.shape[-1] != self.group:  # padded to whole bytes
            sums = sums[:, : self.group]
        sums = sums.reshape(*weights.shape[:-1], -1)
        return sums if weights.dtype == torch.float32 else sums.to(weights.dtype)

    def transpose(self) -> FusedRows:
        parted = self.packed.unflatten(-1, (-1, self._width)).transpose(-3, -2).flatten(-2)
        return FusedRows(parted, self.bits, self.group, not self.down, self.nominal)

    def rows(self, index: Tensor) -> Tensor:
        if self.down:
            return self.to_dense()[index]
        return FusedRows(self.packed[index], self.bits, self.group, False, self.nominal)._dense(self.nominal)

    def growth(self) -> dict[str, int]:
        return {"packed": self.group if self.down else 1}

    def with_rows(self, tensors: dict[str, Tensor], rows: int) -> Self:
        result = self.replace(tensors)
        if result.shape[-2] != rows:
            raise ValueError(
                f"{rows} rows cannot be stored in groups of {self.group}; give a multiple of {self.group}"
            )
        return result

    def flops(self, batch: int) -> int:
        return 2 * math.prod(self.shape) * (batch + 1)  # a product and a sum restore each number

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        codes = torch.randint(0, 16, shape, generator=generator, dtype=torch.uint8)
        tail = torch.rand(*shape[:-1], 2, generator=generator) + torch.tensor([0.1, -1.6])
        parts = [pack(codes, 4), tail.to(torch.float16).view(torch.uint8)]
        return cls(torch.cat(parts, -1), 4, shape[-1], False, dtype)


def fuse_rows(format: Any) -> Any:
    """Codes whose blocks lie along rows or columns as ``FusedRows`` of the same size; all else as it is.

    Where torch reads them faster, and where float16 holds their numbers: scales are the same, minima rounded to 11
    digits.
    """
    if isinstance(format, Sum):
        return Sum(tuple(fuse_rows(term) for term in format.terms))
    if isinstance(format, Product):
        return Product((fuse_rows(format.factors[0]), *format.factors[1:]))
    if not isinstance(format, Quantized) or not _fusible(format):
        return format
    assert isinstance(format.zero, Tensor)
    down = format.block[-2] > 1
    group = format.block[-2] if down else format.block[-1]
    codes = unpack(format.codes, format.bits, format.size[-1])
    parted = codes.unflatten(-2, (-1, group)).mT if down else codes.unflatten(-1, (-1, group))
    least = -format.zero.float() * format.scale.float()
    tail = torch.stack([format.scale.float(), least], -1).to(torch.float16)
    if not bool(torch.isfinite(tail).all() & (tail[..., 0].float() == format.scale.float()).all()):
        return format
    packed = torch.cat([pack(parted, format.bits), tail.view(torch.uint8)], -1).flatten(-2)
    return FusedRows(packed, format.bits, group, down, format.nominal)


def _fusible(format: Quantized) -> bool:
    tall, wide = format.block[-2:]
    group, zero = max(tall, wide), format.zero
    whole = all(n % b == 0 for n, b in zip(format.size, format.block, strict=True))
    lines = min(tall, wide) == 1 and max(format.block[:-2], default=1) == 1 and group * format.bits % 8 == 0
    small = isinstance(zero, Tensor) and zero.element_size() + format.scale.element_size() >= TAIL
    read = format.bits in SUMS and format.nominal in _READ and format.device.type == "cpu" and readable()
    return whole and lines and small and read
