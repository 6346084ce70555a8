"""The containers of GGUF: rows of numbers as bytes, codes as they are where a container has a place for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from polyad.export.gguf.superblocks import K_GRIDS, TABLE, WIDE, level_bytes, round_to_container, superblock_bytes
from polyad.formats import Levels, Quantized, Superblocks
from polyad.formats.stored.block_values import block_values
from polyad.formats.stored.packing import unpack
from polyad.interop.gguf_files import dequantize_rows, quantize

BLOCK = 32
PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
OFFSETS = {"Q4_0": 8, "Q5_0": 16, "Q8_0": 0}
"""The code that stands for zero in containers without a minimum; those of Q8_0 have a sign."""
GRIDS = {"Q4_0": (4, False), "Q4_1": (4, True), "Q5_0": (5, False), "Q5_1": (5, True), "Q8_0": (8, False)}
"""Bits of a code, and whether blocks have a minimum, in order of bytes."""
NARROWER = {"Q4_K": "Q4_1", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""The containers of 256 numbers, and what rows that are no multiples of that have in their place."""
ROUNDED = (*GRIDS, *NARROWER, TABLE)
CONTAINERS = (*PLAIN, *ROUNDED)
MOVED = 1 / 8
"""The most, in steps of its grid, by which rounding scales and minima to float16 may move a number."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A matrix (rows, columns) as the bytes of its rows in a container.

    Where codes were kept as they are (``codes``), ``error`` is the most steps of their grid by which rounding its
    scales moved a number; elsewhere it is the relative Frobenius error of what the bytes stand for.
    """

    container: str
    stored: np.ndarray
    error: float
    codes: bool = False

    def to_matrix(self) -> Tensor:
        """The float32 matrix that the bytes stand for."""
        return torch.from_numpy(np.ascontiguousarray(dequantize_rows(self.stored, self.container)))

    def take(self, index: Tensor | None) -> np.ndarray:
        """The bytes of these rows, in this order; -1 gives a row of zeros."""
        if index is None:
            return self.stored
        picked = self.stored[index.numpy()]
        picked[(index < 0).numpy()] = 0
        return picked


def encode_codes(q: Quantized | Superblocks | Levels) -> Rows | None:
    """The codes of a quantised matrix in the smallest container that holds them; None where none does.

    Where rows are too short for the containers of 256 numbers, each block has a scale and a minimum of its own.
    """
    if q.ndim == 2 and isinstance(q, Levels):
        stored = level_bytes(q)
        return None if stored is None else Rows(TABLE, stored, 0.0, True)
    if q.ndim == 2 and isinstance(q, Superblocks):
        packed = superblock_bytes(q)
        return encode_codes(q.to_quantized()) if packed is None else Rows(*packed, 0.0, True)
    if isinstance(q, Levels | Superblocks):
        return None
    rows, columns = q.size
    group = q.block[-1]
    if q.ndim != 2 or q.block[0] != 1 or columns % BLOCK or (group % BLOCK and group < columns):
        return None
    count = columns // BLOCK
    codes = unpack(q.codes, q.bits, columns).reshape(rows, count, BLOCK).to(torch.int16)
    scale, zero = (block_values(q, x, BLOCK) for x in (q.scale, q.centre()))
    for container, (bits, minimum) in GRIDS.items():
        packed = _fit(container, bits, codes, scale.double(), zero.double(), minimum)
        if packed is not None:
            moved, stored = packed
            return Rows(container, stored, moved, True)
    return None


def _fit(
    container: str, bits: int, codes: Tensor, scale: Tensor, zero: Tensor, minimum: bool
) -> tuple[float, np.ndarray] | None:
    """The bytes of a container that has these codes, and the most steps by which it moves one; None if it has not."""
    whole = bool((zero == zero.round()).all())
    if minimum:
        values, low = codes, (-zero * scale).half()
    elif whole:
        values, low = codes - (zero.to(torch.int16) - OFFSETS[container]).unsqueeze(-1), None
    else:
        return None
    least, most = (-127, 127) if container == "Q8_0" else (0, 2**bits - 1)
    used = values[(scale != 0).expand(values.shape[:2])]  # codes of blocks without a scale stand for zero anyway
    if used.numel() and not least <= int(used.min()) <= int(used.max()) <= most:
        return None
    stored = scale.half()
    values = values.clamp(least, most)
    step = torch.where(scale == 0, 1, scale).abs()
    moved = (stored.double() - scale).abs() / step * (values.abs().amax(-1) if low is None else codes.amax(-1))
    if low is not None:
        moved = moved + (low.double() + zero * scale).abs() / step
    far = float(moved.amax()) if moved.numel() else 0.0
    if not far <= MOVED:
        return None
    return far, _pack(container, bits, values, stored, None if low is None else low.expand_as(stored))


def _pack(container: str, bits: int, values: Tensor, scale: Tensor, low: Tensor | None) -> np.ndarray:
    """The bytes (rows, bytes of a row): of each block scale, minimum, fifth bits, and the codes of its two halves."""
    rows, count, _ = values.shape
    halves = [x.expand(rows, count).contiguous().view(torch.uint8) for x in (scale, low) if x is not None]
    parts: list[np.ndarray] = [x.reshape(rows, count, 2).numpy() for x in halves]
    if container == "Q8_0":
        parts.append(values.to(torch.int8).contiguous().numpy().view(np.uint8))
        return np.concatenate(parts, -1).reshape(rows, -1)
    codes = values.to(torch.uint8).numpy()
    if bits == 5:
        parts.append(np.packbits(codes >> 4, axis=-1, bitorder="little"))
    parts.append((codes[..., : BLOCK // 2] & 15) | (codes[..., BLOCK // 2 :] << 4))
    return np.concatenate(parts, -1).reshape(rows, -1)


def encode_dense(matrix: Tensor, container: str) -> Rows:
    """A dense matrix in a container; rows that are no whole blocks go into the next that has a place for them.

    Blocks of 32 with a scale are rounded as llama.cpp rounds, other codes by polyad's own search. Where numbers leave
    float16's range, a plain container that holds them is taken: BF16, or F32 for a vector.
    """
    container = whole_blocks(container, matrix.shape[-1])
    numbers = matrix.detach().to("cpu", torch.float32).contiguous()
    if container in PLAIN:
        dtype = PLAIN[container]
        rounded = numbers.to(dtype)
        if not bool(torch.isfinite(rounded).all()):
            return encode_dense(matrix, "BF16" if container == "F16" else "F32")
        stored = rounded.view(torch.uint8).numpy()
        return Rows(container, stored, _error(rounded.float(), numbers))
    if container in GRIDS:
        stored = quantize(numbers.numpy(), container)
    elif float(numbers.abs().amax()) > torch.finfo(torch.float16).max:
        return encode_dense(matrix, "BF16")
    else:
        stored = round_to_container(numbers, container)
    rows = Rows(container, stored, 0.0)
    restored = rows.to_matrix()
    if not bool(torch.isfinite(restored).all()):
        return encode_dense(matrix, "BF16")
    return Rows(container, rows.stored, _error(restored, numbers))


def whole_blocks(container: str, columns: int) -> str:
    """The container itself where rows of this length are whole blocks of it, or the next that they are of.

    >>> whole_blocks("Q4_K", 512), whole_blocks("Q4_K", 576), whole_blocks("Q4_K", 100)
    ('Q4_K', 'Q4_1', 'F16')
    """
    if container in K_GRIDS and columns % WIDE:
        container = NARROWER[container]
    return "F16" if container in ROUNDED and columns % BLOCK else container


def _error(one: Tensor, other: Tensor) -> float:
    size = float(other.norm())
    return float((one - other).norm()) / size if size else 0.0
