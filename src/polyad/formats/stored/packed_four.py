"""Codes in the layout of torch's packed 4-bit product on processors, for as long as a program runs."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad.formats.stored.nibbles import nibble_blocks, nibble_rows, pack_nibbles, unpack_nibbles
from polyad.formats.stored.packed_grid import fitting_group, is_whole, lift_of, operator_grid, spread_grid
from polyad.formats.stored.packed_matrix import PackedMatrix, without_codes
from polyad.formats.stored.packing import unpack

TILE = 1 << 19
"""Numbers that are restored at a time, so that they stay in the processor's cache."""


@functools.cache
def four_bit_operator() -> Any:
    """torch's product of bfloat16 rows with packed 4-bit codes; None where this torch has none."""
    packet = getattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu", None)
    packs = hasattr(torch.ops.aten, "_convert_weight_to_int4pack_for_cpu")
    return packet.default if packs and packet is not None else None


@dataclass(frozen=True, eq=False, repr=False)
class PackedFour(PackedMatrix, abstract=True):
    """Codes of 2 to 8 bits as torch's packed 4-bit product takes them, in one part or in two halves.

    ``nibbles`` holds codes of 1 to 4 bits, or, one behind the other along the columns, the high and the low halves of
    longer ones: x meets both, the high ones' scales being 16 times as large. Columns are padded to whole groups of
    ``group``, rows to 32. ``grid`` (columns / group, rows, 2) holds bfloat16 scales and shifts.
    """

    kernel: ClassVar[str] = "packed4"

    nibbles: Tensor
    grid: Tensor
    group: int

    @property
    def stored(self) -> int:
        return self.nibbles.nbytes + self.grid.nbytes

    @property
    def wide(self) -> int:
        """The columns of rows that the operator takes, for each half of the codes."""
        return self.nibbles.shape[1] * 2 // self.halves

    @property
    def halves(self) -> int:
        return 1 if self.source.bits <= 4 else 2

    def codes(self) -> Tensor:
        n, k = self.shape
        return self._join(unpack_nibbles(self.nibbles)[:n], k)

    def _join(self, nibbles: Tensor, k: int) -> Tensor:
        lift = lift_of(self.source.bits)
        if self.halves == 1:
            return nibbles[:, :k] - lift
        return (nibbles[:, :k] << 4 | nibbles[:, self.wide : self.wide + k]) - lift

    def few(self, x: Tensor) -> Tensor:
        """The packed product: x (rows, in or ``wide``), bfloat16, to (rows, out padded to 32), bfloat16."""
        x = self.pad(x)
        if self.halves == 2:
            x = torch.cat([x, x], 1)
        return four_bit_operator()(x, self.nibbles, self.group, self.grid)

    def many(self, x: Tensor) -> Tensor:
        return x @ self.columns(x.dtype)

    def columns(self, dtype: torch.dtype) -> Tensor:
        """``W.mT`` (in, out), each number as ``source`` states it, rounded once to ``dtype``."""
        n, k = self.shape
        codes = self._code_columns().unflatten(0, (-1, self.group))  # (groups, group, rows)
        scale, zero = self.source.scale, self._spread(self.source.centre())
        lift = lift_of(self.source.bits)
        whole = dtype == scale.dtype == torch.bfloat16 and is_whole(self.source.zero)
        if whole and (largest := int(zero.amax()) + lift) <= 256:  # bfloat16 holds no odd number beyond
            scale = self.grid[-len(codes) :, :, 0].unsqueeze(1).contiguous()  # bfloat16 as well: the same numbers
            out = _multiply_whole(codes, scale, zero, lift, self.source.bits <= 4 and largest < 128)
        else:
            out = _multiply_wide(codes, self._spread(scale), zero, lift, dtype)
        return out.flatten(0, 1)[:k, :n]

    def _spread(self, values: Tensor | float) -> Tensor:
        """Values of the source's blocks, one for each group and row: (groups, 1, rows padded)."""
        return spread_grid(self.source, values, self.group, self.wide, self.nibbles.shape[0]).unsqueeze(1)

    def _code_columns(self) -> Tensor:
        """Codes, lifted, by columns: (``wide``, rows padded)."""
        codes = self.nibbles.new_empty(self.wide, self.nibbles.shape[0])
        for rows, part, at in nibble_blocks(self.nibbles):
            target = codes[:, rows].unflatten(1, (len(part), -1))  # (k, blocks, rows of one)
            for high, there in enumerate(at):
                target[:, :, there] = self._half(part, high).transpose(0, 1)
        return codes

    def _half(self, part: Tensor, high: int) -> Tensor:
        """Codes, lifted, in one half of the bytes: (blocks, k or 2 k, rows / 2) to (blocks, k, rows / 2)."""
        if self.halves == 1:
            return part >> 4 if high else part & 15
        upper, lower = part.chunk(2, 1)
        return (upper & 240) | (lower >> 4) if high else (upper << 4) | (lower & 15)

    def dense(self, dtype: torch.dtype) -> Tensor:
        return self.columns(dtype).mT

    def codes_of(self, index: Tensor) -> Tensor:
        return self._join(nibble_rows(self.nibbles, index), self.shape[1])


def _multiply_whole(codes: Tensor, scale: Tensor, zero: Tensor, lift: int, bytewise: bool) -> Tensor:
    """``(codes - lift - zero) * scale`` for whole zero points: bfloat16 holds the differences as they are.

    Passes over half the bytes of float32, and the same result, whose one rounding is that of the product. Where all
    differences fit a byte (``bytewise``), they are taken faster still.
    """
    if bytewise:
        codes = codes.sub_(zero.to(torch.uint8).add_(lift)).view(torch.int8)  # wraps to the sign
    zero = (zero if zero.is_floating_point() else zero.float()).add(lift).bfloat16()
    out = torch.empty(codes.shape, dtype=torch.bfloat16, device=codes.device)
    step = max(1, TILE // codes[0].numel())
    for target, *parts in zip(*(t.split(step) for t in (out, codes, scale, zero)), strict=True):
        target.copy_(parts[0])
        target = target if bytewise else target.sub_(parts[2])
        target.mul_(parts[1])
    return out


def _multiply_wide(codes: Tensor, scale: Tensor, zero: Tensor, lift: int, dtype: torch.dtype) -> Tensor:
    """``(codes - lift - zero) * scale``, computed in float32 or better."""
    wide = torch.promote_types(dtype, torch.float32)
    scale = scale.to(wide)
    shift = -(zero.to(wide) + lift) * scale
    out = torch.empty(codes.shape, dtype=dtype, device=codes.device)
    step = max(1, TILE // codes[0].numel())
    for target, *parts in zip(*(t.split(step) for t in (out, codes, scale, shift)), strict=True):
        values = target.copy_(parts[0]) if dtype == wide else parts[0].to(wide)
        torch.addcmul(parts[2], values, parts[1], out=values)
        if dtype != wide:
            target.copy_(values)
    return out


def pack_four(source: Any) -> PackedFour | None:
    """A quantised matrix in this layout; None where its groups, its size or its bits do not fit."""
    if four_bit_operator() is None or len(source.size) != 2 or source.bits < 2:
        return None
    n, k = source.size
    group = fitting_group(source.block[1], k)
    if group is None or min(n, k) < 1:
        return None
    wide, tall = -(-k // group) * group, -(-n // 32) * 32
    codes = unpack(source.codes, source.bits, k) + lift_of(source.bits)
    padding = (0, wide - k, 0, tall - n)
    if source.bits <= 4:
        nibbles = F.pad(codes, padding)
    else:
        nibbles = torch.cat([F.pad(part, padding) for part in (codes >> 4, codes & 15)], 1)
    grid = operator_grid(source, group, wide, tall)
    if grid is None:
        return None
    return PackedFour(without_codes(source), pack_nibbles(nibbles), grid, group)
