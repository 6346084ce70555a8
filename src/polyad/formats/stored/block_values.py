"""Scales and zero points of quantised matrices on another grid of blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def block_values(matrix: Any, values: Tensor | float, wide: int, columns: int | None = None) -> Tensor:
    """Values of a ``Quantized`` matrix's own blocks, one for each row and each ``wide`` of its columns.

    Of shape (rows, ceil(columns / wide)), for ``columns`` that may be more than the matrix has, and in the dtype of
    ``values``; 8-bit floats, with which little can be done, become float32.

    >>> from polyad.quantize import round_to_nearest
    >>> matrix = round_to_nearest(torch.arange(64.0).reshape(2, 32), bits=4, group=16)
    >>> block_values(matrix, matrix.scale, 8).shape
    torch.Size([2, 4])
    """
    (rows, width), (tall, block) = matrix.size, matrix.block
    starts = torch.arange(0, width if columns is None else columns, wide, device=matrix.scale.device)
    if not isinstance(values, Tensor):
        return torch.full((rows, len(starts)), float(values), device=matrix.scale.device)
    if values.is_floating_point() and values.dtype.itemsize == 1:
        values = values.float()
    if (tall, block) == (1, wide) and columns in (None, width):
        return values
    by_row = values.repeat_interleave(min(tall, rows), 0)[:rows] if tall > 1 else values
    return by_row[:, (starts // block).clamp_max(values.shape[1] - 1)]
