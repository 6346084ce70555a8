"""The scales and zero points of a quantised matrix as torch's packed 4-bit product takes them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad.formats.stored.block_values import block_values

GROUPS = (256, 128, 64, 32)
"""Columns that may share a scale in torch's operator."""


def spread_grid(source: Any, grid: Tensor | float, group: int, wide: int, tall: int) -> Tensor:
    """A grid of the format's blocks as one of groups along padded rows: (wide / group, tall), zeros beyond."""
    values = block_values(source, grid, group, wide)
    return F.pad(values.mT, (0, tall - source.size[0])).contiguous()  # rows last, along which it is read


def narrow_scales(scale: Tensor) -> Tensor | None:
    """Scales in bfloat16; None where one of them, or 256 times it, lies outside its range."""
    narrow = scale.bfloat16()
    lost = (narrow.float() - scale).abs() > scale.abs() * 2**-8
    return None if bool(lost.any()) or not bool(torch.isfinite(narrow * 256).all()) else narrow


def operator_grid(source: Any, group: int, wide: int, tall: int) -> Tensor | None:
    """Scales and shifts: value = (nibble - 8) scale + shift, all of it bfloat16; None where that cannot hold them."""
    scale = spread_grid(source, source.scale, group, wide, tall).float()
    zero = spread_grid(source, source.centre(), group, wide, tall).float() + lift_of(source.bits)
    narrow = narrow_scales(scale)
    if narrow is None:
        return None
    if source.bits <= 4:
        grid = torch.stack([narrow, ((8 - zero) * scale).bfloat16()], -1)
    else:  # (16 h + l - zero) s = (h - 8) 16 s + (l - 8) s + (136 - zero) s; what one shift rounds off the other gets
        upper = ((128 - zero) * scale).bfloat16()
        lower = ((136 - zero) * scale - upper.float()).bfloat16()
        grid = torch.cat([torch.stack([16 * narrow, upper], -1), torch.stack([narrow, lower], -1)])
    return grid if bool(torch.isfinite(grid).all()) else None


def is_whole(zero: Tensor | float | None) -> bool:
    """True for zero points that are whole numbers below 256, as their dtype or the middle of a range says."""
    if zero is None:
        return True
    return zero.dtype == torch.uint8 if isinstance(zero, Tensor) else float(zero) in range(256)


def lift_of(bits: int) -> int:
    """The number that is added to codes so that the middle of their range is the middle of 4 bits, or of 8."""
    return (8 if bits <= 4 else 128) - 2 ** (bits - 1)


def fitting_group(block: int, k: int) -> int | None:
    """The operator's group for blocks of so many columns: the one that pads least, and of those the largest."""
    fitting = [g for g in GROUPS if block >= k or block % g == 0]
    return min(fitting, key=lambda g: (-(-k // g) * g, -g), default=None)
