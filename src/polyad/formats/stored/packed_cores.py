"""Codes in the layout of torch's packed 4-bit product on CUDA, for as long as a program runs.

Written against torch's definition of its operators and tried by shape on the meta device and by stand-ins of them; it
has not run on a graphics processor. So ``auto`` does not choose it: ``kernels="cores4"`` does, and like every packed
product it is held to the dense one before it is trusted.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad.formats.stored.packed_grid import fitting_group, lift_of, operator_grid
from polyad.formats.stored.packed_matrix import PackedMatrix, without_codes
from polyad.formats.stored.packing import unpack

TALL = 8
"""Rows are padded to multiples of this."""
TILES = (8, 4, 2)
"""Columns times 16 that the operator takes at a time: they divide the padded columns."""
STEP = 1024
"""Columns whose codes are read at a time."""


@functools.cache
def cores_operators() -> tuple[Any, Any] | None:
    """torch's product of bfloat16 rows with packed 4-bit codes on CUDA, and its packing; None where it has none."""
    names = ("_weight_int4pack_mm", "_convert_weight_to_int4pack")
    product, convert = (getattr(torch.ops.aten, name, None) for name in names)
    return None if product is None or convert is None else (product.default, convert.default)


@dataclass(frozen=True, eq=False, repr=False)
class PackedCores(PackedMatrix, abstract=True):
    """Codes of 2 to 4 bits as tensor cores take them.

    ``words`` (rows / 8, columns / (16 tiles), 32, tiles / 2) holds the codes, ``grid`` (columns / group, rows, 2)
    their scales and shifts in bfloat16: value = (code - 8) scale + shift.
    """

    kernel: ClassVar[str] = "cores4"

    words: Tensor
    grid: Tensor
    group: int

    @property
    def stored(self) -> int:
        return self.words.nbytes + self.grid.nbytes

    @property
    def wide(self) -> int:
        return self.grid.shape[0] * self.group

    def few(self, x: Tensor) -> Tensor:
        return _both_operators()[0](self.pad(x), self.words, self.group, self.grid)

    def codes(self) -> Tensor:
        """The codes (rows, columns), by products with unit rows: whatever the layout is, the operator reads it."""
        n, k = self.shape
        plain = torch.ones_like(self.grid)
        plain[..., 1] = 8
        unit = torch.eye(self.wide, dtype=torch.bfloat16, device=self.words.device)
        parts = [_both_operators()[0](rows, self.words, self.group, plain) for rows in unit.split(STEP)]
        codes = torch.cat(parts)[:k, :n].mT  # whole numbers below 16, which bfloat16 holds
        return codes.round().to(torch.uint8) - lift_of(self.source.bits)

    def dense(self, dtype: torch.dtype) -> Tensor:
        return self.restore().dequantize(torch.promote_types(dtype, torch.float32)).to(dtype)


def pack_cores(source: Any) -> PackedCores | None:
    """A quantised matrix in this layout; None where its groups, its size or its bits do not fit."""
    if cores_operators() is None or len(source.size) != 2 or not 2 <= source.bits <= 4:
        return None
    n, k = source.size
    group = fitting_group(source.block[1], k)
    if group is None or min(n, k) < 1:
        return None
    wide, tall = -(-k // group) * group, -(-n // TALL) * TALL
    grid = operator_grid(source, group, wide, tall)
    if grid is None:
        return None
    codes = F.pad(unpack(source.codes, source.bits, k) + lift_of(source.bits), (0, wide - k, 0, tall - n))
    pairs = (codes[:, ::2] << 4) | codes[:, 1::2]  # the first of two in the high half
    words = _both_operators()[1](pairs.contiguous(), next(tiles for tiles in TILES if wide % (16 * tiles) == 0))
    return PackedCores(without_codes(source), words, grid, group)


def _both_operators() -> tuple[Any, Any]:
    pair = cores_operators()
    assert pair is not None
    return pair
