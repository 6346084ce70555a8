"""Containers of 256 numbers whose blocks have scales of few bits, and the one with a table."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from polyad.formats import Levels, Superblocks
from polyad.formats.stored.block_values import block_values
from polyad.formats.stored.packing import unpack
from polyad.formats.stored.quantized import middle
from polyad.quantize import normal_float, vs_quant

WIDE = 256
"""The numbers of a row that share a float16 scale in these containers."""
K_GRIDS = {"Q4_K": (4, True), "Q5_K": (5, True), "Q6_K": (6, False)}
"""Bits of a code, and whether blocks have a minimum: 8 blocks of 32 then, otherwise 16 of 16."""
TABLE = "IQ4_NL"
IQ4_NL = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""The numbers that codes of that container stand for, in blocks of 32."""
ARGUMENTS = {
    "Q4_K": {"bits": 4, "parts": 8, "step_bits": 6}, "Q5_K": {"bits": 5, "parts": 8, "step_bits": 6},
    "Q6_K": {"bits": 6, "parts": 16, "step_bits": 7, "symmetric": True},
}  # fmt: skip
"""What ``vs_quant`` is called with for each, besides groups of 256 and scales of float16."""


def round_to_container(matrix: Tensor, container: str) -> np.ndarray:
    """The bytes of a float32 matrix in one of these containers, by polyad's own search of scales."""
    if container == TABLE:
        stored = level_bytes(normal_float(matrix, 4, group=32, levels=IQ4_NL, scale_dtype=torch.float16))
    else:
        q = vs_quant(matrix, group=WIDE, scale_dtype=torch.float16, **ARGUMENTS[container])
        packed = superblock_bytes(q)
        stored = None if packed is None else packed[1]
    assert stored is not None
    return stored


def level_bytes(q: Levels) -> np.ndarray | None:
    """The codes of a table as they are in IQ4_NL; None where the table or the blocks are others."""
    rows, columns = q.size
    group = q.block[-1]
    fits = q.bits == 4 and q.block[0] == 1 and columns % 32 == 0 and (group % 32 == 0 or group >= columns)
    if not fits or q.levels.tolist() != list(IQ4_NL) or not _is_half(q.scale):
        return None
    codes = unpack(q.codes, 4, columns).reshape(rows, -1, 2, 16)
    scale = block_values(q, q.scale, 32).half().contiguous().view(torch.uint8).reshape(rows, -1, 2)
    return torch.cat([scale, codes[:, :, 0] | (codes[:, :, 1] << 4)], -1).reshape(rows, -1).numpy()


def superblock_bytes(q: Superblocks) -> tuple[str, np.ndarray] | None:
    """The container that holds these codes, scales and minima as they are, and the bytes; None where none does."""
    rows, columns = q.size
    long = 16 if q.lows is None else 32
    if q.block != (1, long) or q.per != (1, WIDE // long) or columns % WIDE or not _is_half(q.scale):
        return None
    codes = unpack(q.codes, q.bits, columns).reshape(rows, -1, WIDE)
    steps = q.block_numbers(q.steps).reshape(rows, -1, WIDE // long)
    scale = q.scale.half().contiguous().view(torch.uint8).reshape(rows, -1, 2)
    if q.lows is None or q.low is None:
        if q.bits > 6 or int(steps.max()) > 127 or middle(q.bits) % 1:
            return None
        six = codes + (32 - int(middle(q.bits)))
        return "Q6_K", torch.cat([*_six_bits(six), steps, scale], -1).reshape(rows, -1).numpy()
    if q.bits > 5 or q.step_bits > 6 or not _is_half(q.low):
        return None
    lows = q.block_numbers(q.lows).reshape(rows, -1, WIDE // long)
    low = q.low.half().contiguous().view(torch.uint8).reshape(rows, -1, 2)
    pairs = codes.unflatten(-1, (4, 2, 32))  # each 64 numbers share 32 bytes
    parts = [scale, low, _six_bit_pairs(steps, lows)]
    if q.bits == 5:
        high = pairs >> 4
        places = torch.arange(0, 8, 2, dtype=torch.uint8).view(4, 1)
        parts.append(((high[:, :, :, 0] << places) | (high[:, :, :, 1] << (places + 1))).sum(2, dtype=torch.uint8))
    parts.append(((pairs[:, :, :, 0] & 15) | ((pairs[:, :, :, 1] & 15) << 4)).flatten(-2))
    return ("Q5_K" if q.bits == 5 else "Q4_K"), torch.cat(parts, -1).reshape(rows, -1).numpy()


def _six_bit_pairs(steps: Tensor, lows: Tensor) -> Tensor:
    """Eight scales and eight minima of six bits in twelve bytes: the upper two bits of the last four go apart."""
    first = steps[..., :4] | ((steps[..., 4:] >> 4) << 6)
    second = lows[..., :4] | ((lows[..., 4:] >> 4) << 6)
    return torch.cat([first, second, (steps[..., 4:] & 15) | ((lows[..., 4:] & 15) << 4)], -1)


def _six_bits(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of six bits, 256 a block, as 128 bytes of their lower four bits and 64 of their upper two."""
    quarters = codes.unflatten(-1, (2, 4, 32))  # of each half
    one, two, three, four = quarters.unbind(-2)
    lower = torch.cat([(one & 15) | ((three & 15) << 4), (two & 15) | ((four & 15) << 4)], -1)
    upper = (one >> 4) | ((two >> 4) << 2) | ((three >> 4) << 4) | ((four >> 4) << 6)
    return lower.flatten(-2), upper.flatten(-2)


def _is_half(x: Tensor) -> bool:
    """True where float16 holds every number as it is."""
    return bool(torch.equal(x.half().to(x.dtype), x))
