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
        plane = packed[..., start : start + length]
        if p < 8:
            shifts = torch.arange(0, 8, p, dtype=torch.uint8, device=packed.device)
            plane = ((plane.unsqueeze(-1) >> shifts) & (2**p - 1)).flatten(-2)[..., :n]
        codes = plane if codes is None else codes | (plane << taken)
        taken, start = taken + p, start + length
    assert codes is not None
    return codes
