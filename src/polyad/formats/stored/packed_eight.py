"""Codes with a scale a row as torch's 8-bit product on processors takes them, for as long as a program runs."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad.formats.stored.packed_grid import narrow_scales
from polyad.formats.stored.packed_matrix import PackedMatrix, without_codes
from polyad.formats.stored.packing import unpack

STEP = 32
"""Columns are padded to whole vectors: the operator reads past the end of shorter rows."""


@functools.cache
def eight_bit_operator() -> Any:
    """torch's product of bfloat16 rows with 8-bit integers; None where this torch has none."""
    packet = getattr(torch.ops.aten, "_weight_int8pack_mm", None)
    return None if packet is None else packet.default


@dataclass(frozen=True, eq=False, repr=False)
class PackedEight(PackedMatrix, abstract=True):
    """Codes of 5 to 8 bits with a scale a row and no zero points, as torch's 8-bit product takes them.

    ``integers`` (rows, columns padded to 32) are codes less the middle of their range, ``narrow`` (rows,) their
    scales in bfloat16.
    """

    kernel: ClassVar[str] = "packed8"

    integers: Tensor
    narrow: Tensor

    @property
    def stored(self) -> int:
        return self.integers.nbytes + self.narrow.nbytes

    @property
    def wide(self) -> int:
        return self.integers.shape[1]

    def codes(self) -> Tensor:
        return self._codes(self.integers)

    def codes_of(self, index: Tensor) -> Tensor:
        return self._codes(self.integers[index])

    def _codes(self, integers: Tensor) -> Tensor:
        return (integers[:, : self.shape[1]] + 2 ** (self.source.bits - 1)).view(torch.uint8)  # wraps at 8 bits

    def few(self, x: Tensor) -> Tensor:
        return eight_bit_operator()(self.pad(x), self.integers, self.narrow)

    def dense(self, dtype: torch.dtype) -> Tensor:
        wide = torch.promote_types(dtype, torch.float32)
        return self.integers[:, : self.shape[1]].to(wide).mul_(self.source.scale.to(wide)).to(dtype)


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
    return PackedEight(without_codes(source), F.pad(codes.view(torch.int8), (0, -k % STEP)), narrow)
