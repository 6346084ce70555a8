"""The layout of torch's packed 4-bit matrices on processors, read off its own packing.

torch packs blocks of rows, two codes a byte, column by column; which two rows share a byte depends on the processor.
A layout that is not of that form is not known here, and then nothing is packed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

Halves = tuple[slice, slice]
"""The rows of a block that stand in the low and in the high halves of its bytes."""


def pack_nibbles(codes: Tensor) -> Tensor:
    """Codes (n, k) below 16, in torch's layout; n a multiple of 16, k of 32. Bytes of shape (n, k / 2)."""
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32), 1)


def nibble_blocks(packed: Tensor) -> Iterator[tuple[slice, Tensor, Halves]]:
    """Runs of blocks of one size: their rows, their bytes (blocks, k, rows / 2), and where these rows stand."""
    n, k = packed.shape[0], packed.shape[1] * 2
    tall = block_rows()
    whole = n // tall * tall
    flat = packed.reshape(-1)
    for start, stop, rows in ((0, whole, tall), (whole, n, n - whole)):
        if stop > start:
            part = flat[start * k // 2 : stop * k // 2].view(-1, k, rows // 2)
            yield slice(start, stop), part, halves(rows)


def unpack_nibbles(packed: Tensor) -> Tensor:
    """The inverse of ``pack_nibbles``: codes (n, k), uint8."""
    codes = packed.new_empty(packed.shape[0], packed.shape[1] * 2)
    for rows, part, (low, high) in nibble_blocks(packed):
        block = codes[rows].unflatten(0, (part.shape[0], -1)).mT  # (blocks, k, rows)
        block[..., low] = part & 15
        block[..., high] = part >> 4
    return codes


def nibble_rows(packed: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (count,) of ``unpack_nibbles``: (count, k)."""
    n, k = packed.shape[0], packed.shape[1] * 2
    tall = block_rows()
    sizes = torch.full_like(index, tall)
    sizes[index >= n // tall * tall] = n % tall
    columns = torch.arange(k, device=index.device)
    inside = index % tall
    place, shift = torch.empty_like(index), torch.empty_like(index, dtype=torch.uint8)
    for rows in {tall, n % tall} - {0}:
        here = sizes == rows
        byte, high = _places(rows)
        place[here], shift[here] = byte[inside[here]], high[inside[here]]
    at = ((index - inside) * k // 2 + place).unsqueeze(1) + columns * (sizes // 2).unsqueeze(1)
    return (packed.reshape(-1)[at] >> shift.unsqueeze(1)) & 15


@functools.cache
def block_rows() -> int:
    """The rows of a whole block: after so many, bytes tell of the second column."""
    columns = pack_nibbles(torch.arange(32, device="cpu").expand(256, 32) & 15).reshape(-1) & 15
    return 2 * int((columns != 0).nonzero()[0])


@functools.cache
def halves(rows: int) -> Halves:
    """The rows of a block that stand in low and in high halves of bytes; ValueError for unknown layouts."""
    numbers = torch.arange(rows, device="cpu").unsqueeze(1).expand(rows, 32)
    fine, coarse = (pack_nibbles(digit).reshape(-1)[: rows // 2].long() for digit in (numbers & 15, numbers >> 4))
    low, high = (fine & 15) + (coarse & 15) * 16, (fine >> 4) + (coarse >> 4) * 16
    cut = tuple(_progression(part.tolist()) for part in (low, high))
    if None in cut or not torch.equal(torch.cat([low, high]).sort().values, torch.arange(rows, device="cpu")):
        raise ValueError(f"torch packs {rows} rows of 4-bit codes in a layout that is not known")
    return cut  # pyright: ignore[reportReturnType] - None was refused


@functools.cache
def _places(rows: int) -> tuple[Tensor, Tensor]:
    """For each row of a block its byte, and the shift to its half."""
    low, high = halves(rows)
    byte, shift = (
        torch.empty(rows, dtype=torch.long, device="cpu"),
        torch.zeros(rows, dtype=torch.uint8, device="cpu"),
    )
    byte[low] = byte[high] = torch.arange(rows // 2, device="cpu")
    shift[high] = 4
    return byte, shift


def _progression(rows: list[int]) -> slice | None:
    step = rows[1] - rows[0]
    ends = rows[0] + step * len(rows)
    return slice(rows[0], ends - step + 1, step) if step > 0 and rows == list(range(rows[0], ends, step)) else None
