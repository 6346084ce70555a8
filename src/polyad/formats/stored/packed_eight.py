"""Codes with a scale a row as torch's 8-bit product on processors takes them, for as long as a program runs."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad.formats.format import Format
from polyad.formats.stored.packed_grid import narrow_scales
from polyad.formats.stored.packing import pack, unpack

STEP = 32
"""Columns are padded to whole vectors: the operator reads past the end of shorter rows."""


@functools.cache
def eight_bit_operator() -> Any:
    """torch's product of bfloat16 rows with 8-bit integers; None where this torch has none."""
    packet = getattr(torch.ops.aten, "_weight_int8pack_mm", None)
    return None if packet is None else packet.default


@dataclass(frozen=True, eq=False, repr=False)
class PackedEight(Format, abstract=True):
    """A ``Quantized`` matrix of 5 to 8 bits with a scale a row without zero points, made by ``prepare``, never saved.

    ``integers`` (rows, columns padded to 32) are codes less the middle of their range, ``narrow`` (rows,) their
    scales in bfloat16. ``source`` is the format that was packed with its codes taken away.
    """

    kernel: ClassVar[str] = "packed8"

    integers: Tensor
    narrow: Tensor
    source: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.source.size

    @property
    def dtype(self) -> torch.dtype:
        return self.source.nominal

    @property
    def nbytes(self) -> int:
        parts = (self.integers, self.narrow, self.source.scale)
        return sum(part.nbytes for part in parts if isinstance(part, Tensor))

    @property
    def wide(self) -> int:
        """The columns of rows that the operator takes."""
        return self.integers.shape[1]

    def restore(self) -> Any:
        """The format that was packed, bit for bit."""
        return dataclasses.replace(self.source, codes=pack(self._codes(self.integers), self.source.bits))

    def _codes(self, integers: Tensor) -> Tensor:
        return (integers[:, : self.shape[1]] + 2 ** (self.source.bits - 1)).view(torch.uint8)  # wraps at 8 bits

    def few(self, x: Tensor) -> Tensor:
        """The operator's product: x (rows, in or ``wide``), bfloat16, to (rows, out), bfloat16."""
        if x.shape[1] != self.wide:
            x = F.pad(x, (0, self.wide - x.shape[1]))
        return eight_bit_operator()(x, self.integers, self.narrow)

    def many(self, x: Tensor) -> Tensor:
        """The product with the numbers restored in x's dtype: x (rows, in) to (rows, out)."""
        return F.linear(x, self.dense(x.dtype))

    def dense(self, dtype: torch.dtype) -> Tensor:
        """W, each number as ``source`` states it, computed in float32 or better."""
        wide = torch.promote_types(dtype, torch.float32)
        return self.integers[:, : self.shape[1]].to(wide).mul_(self.source.scale.to(wide)).to(dtype)

    def linear(self, x: Tensor) -> Tensor:
        return self.many(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)

    def combine(self, weights: Tensor) -> Tensor:
        return weights @ self.dense(weights.dtype)

    def rows(self, index: Tensor) -> Tensor:
        flat = torch.arange(self.shape[0], device=index.device)[index.reshape(-1)]  # refuses what lies past the end
        values = self.source.restore_rows(self._codes(self.integers[flat]), flat)
        return values.reshape(*index.shape, self.shape[1])


def pack_eight(source: Any) -> PackedEight | None:
    """A quantised matrix in this layout; None where its blocks, its bits or its zero points do not fit."""
    by_row = len(source.size) == 2 and source.block[0] == 1 and source.block[1] >= source.size[1]
    if (
        eight_bit_operator() is None
        or not by_row
        or source.bits <= 4
        or source.zero is not None
        or min(source.size) < 1
    ):
        return None
    k, middle = source.size[1], 2 ** (source.bits - 1)
    narrow = narrow_scales(source.scale.float().reshape(-1))
    if narrow is None:
        return None
    codes = unpack(source.codes, source.bits, k) - middle  # wraps, which is the integer's own bits
    bare = dataclasses.replace(source, codes=source.codes.to("meta"))
    return PackedEight(F.pad(codes.view(torch.int8), (0, -k % STEP)), narrow, bare)
