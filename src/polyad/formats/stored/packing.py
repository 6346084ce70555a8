"""Integers of 1 to 8 bits packed into bytes, along the last dimension.

A width that does not divide a byte is split into planes that do: three bits are stored as a plane of two and a
plane of one. Each plane is padded to whole bytes, so n codes of b bits take the sum of ceil(n p / 8) bytes over
the planes p of b, which is n b / 8 where n is a multiple of 8.
"""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check


def planes(bits: int) -> tuple[int, ...]:
    """The powers of two that sum to ``bits``, largest first."""
    return tuple(p for p in (8, 4, 2, 1) if bits & p)


def packed_length(n: int, bits: int) -> int:
    """Bytes that ``n`` codes take."""
    return sum(-(-n * p // 8) for p in planes(bits))


def pack(codes: Tensor, bits: int) -> Tensor:
    """uint8 codes below 2**bits, shape (…, n), to bytes of shape (…, packed_length(n, bits))."""
    if codes.dtype != torch.uint8:
        raise TypeError(f"codes have dtype {codes.dtype}; give codes.to(torch.uint8), each below 2**bits")
    _check.bits(bits)
    if bits == 8:
        return codes.contiguous()
    parts, taken = [], 0
    for p in planes(bits):
        per = 8 // p
        plane = (codes >> taken) & (2**p - 1)
        plane = torch.nn.functional.pad(plane, (0, -codes.shape[-1] % per)).unflatten(-1, (-1, per))
        shifts = torch.arange(0, 8, p, dtype=torch.uint8, device=codes.device)
        parts.append((plane << shifts).sum(-1, dtype=torch.uint8))
        taken += p
    return torch.cat(parts, -1)


def unpack(packed: Tensor, bits: int, n: int) -> Tensor:
    """The inverse of ``pack``: uint8 codes of shape (…, n)."""
    if bits == 8:
        return packed
    codes, taken, start = None, 0, 0
    for p in planes(bits):
        length = -(-n * p // 8)
        plane = _spread(packed[..., start : start + length], p)[..., :n]
        codes = plane if codes is None else codes | (plane << taken)
        taken, start = taken + p, start + length
    assert codes is not None
    return codes


def places(packed: Tensor, bits: int) -> list[Tensor]:
    """For each place in a byte the codes that stand there times 2**(bits place), bytes of packed's shape.

    For 1, 2, 4 and 8 bits. Cheaper than ``unpack``, for sums in which the order of the codes does not matter.
    """
    return [packed & ((2**bits - 1) << (bits * place)) for place in range(8 // bits)] if bits < 8 else [packed]


_STEPS = {
    4: (torch.int16, ((4, 0x0F0F),)),
    2: (torch.int32, ((12, 0x000F000F), (6, 0x03030303))),
    1: (torch.int64, ((28, 0x0000000F0000000F), (14, 0x0003000300030003), (7, 0x0101010101010101))),
}
"""For each width: the word in which the codes of a byte come to lie a byte apart, and the shifts and masks to it."""


def _spread(plane: Tensor, p: int) -> Tensor:
    """The codes of p bits in bytes (…, n), each in a byte of its own, (…, 8 n / p), least significant first.

    A few passes over whole words, which is several times faster than one shift a code. Words lie in memory with the
    least significant byte first, as on every processor that torch supports but those of IBM's z line.
    """
    word, steps = _STEPS[p]
    x = plane.to(word, memory_format=torch.contiguous_format)
    for shift, mask in steps:
        x = torch.bitwise_or(x, x << shift).bitwise_and_(mask)
    return x.view(torch.uint8)
