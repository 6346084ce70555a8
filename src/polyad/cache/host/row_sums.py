"""torch's weighted sums of packed rows, and the order in which they read them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import torch
from torch import Tensor

SUMS = {2: "embedding_bag_2bit_rowwise_offsets", 4: "embedding_bag_4bit_rowwise_offsets"}
"""Bits of a code and the name of torch's sums of such rows."""


@lru_cache(maxsize=8)
def sum_order(lines: tuple[tuple[int, int], ...], rows: int, down: bool) -> tuple[Tensor, Tensor]:
    """The rows of bytes that each sum adds up, and the start of each sum; the same for all layers of one size.

    ``lines`` are sizes and strides of the batch, the rows and the groups of ``packed``.
    """
    index = torch.zeros(1, dtype=torch.int32)
    for n, stride in lines[:-2]:
        index = (index.unsqueeze(-1) + torch.arange(n, dtype=torch.int32) * stride).flatten()
    (n, tall), (groups, wide) = lines[-2:] if down else (lines[-1], lines[-2])
    inner = (torch.arange(n, dtype=torch.int32) * tall).unsqueeze(-1) + torch.arange(groups, dtype=torch.int32) * wide
    index = (index.view(-1, 1, 1, 1) + inner).expand(-1, rows, -1, -1)
    return index.reshape(-1).contiguous(), torch.arange(0, index.numel(), groups, dtype=torch.int32)


@cache
def sum_kernel(bits: int) -> Callable[..., Tensor]:
    """torch's weighted sums of rows of codes of so many bits."""
    return getattr(torch.ops.quantized, SUMS[bits]).default


@lru_cache(maxsize=1)
def readable() -> bool:
    """True if this build of torch has sums of packed rows, and gets one right."""
    packed = torch.cat([torch.tensor([[0x21]], dtype=torch.uint8), torch.ones(1, 2).half().view(torch.uint8)], -1)
    index = torch.zeros(1, dtype=torch.int32)
    try:
        for bits, expected in ((2, [2.0, 1.0, 3.0, 1.0]), (4, [2.0, 3.0])):
            sums = sum_kernel(bits)(packed, index, index, False, 0, False, torch.ones(1), None, False)
            if sums.tolist() != [expected]:
                return False
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return True
