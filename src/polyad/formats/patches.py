"""Patches of a signal as rows, so that a convolution is a product with a matrix."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def unfold_patches(
    x: Tensor,
    kernel: tuple[int, ...],
    stride: tuple[int, ...] | None = None,
    padding: tuple[int, ...] | None = None,
    dilation: tuple[int, ...] | None = None,
) -> tuple[Tensor, tuple[int, ...]]:
    """Patches of x (batch, channels, *space) as rows, (batch, positions, channels * prod(kernel)), and their grid."""
    ones = (1,) * len(kernel)
    stride, padding, dilation = stride or ones, padding or (0,) * len(kernel), dilation or ones
    x = torch.nn.functional.pad(x, [p for pad in reversed(padding) for p in (pad, pad)])
    for axis, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True), start=2):
        x = x.unfold(axis, (k - 1) * d + 1, s)[..., ::d]
    n = len(kernel)
    out = tuple(x.shape[2 : 2 + n])
    order = (0, *range(2, 2 + n), 1, *range(2 + n, 2 + 2 * n))
    return x.permute(order).reshape(x.shape[0], math.prod(out), -1), out


def convolve_patches(format: Any, x: Tensor, kernel: tuple[int, ...], *, groups: int = 1, **geometry: Any) -> Tensor:
    """``Format.convolve`` of x with a format that knows ``linear`` only, which is applied to the patches of x."""
    if groups != 1:
        raise ValueError(
            f"groups={groups}: {type(format).__name__} cannot hold a grouped convolution; keep that layer dense"
        )
    if x.ndim == len(kernel) + 1:
        return convolve_patches(format, x.unsqueeze(0), kernel, **geometry).squeeze(0)
    columns, out = unfold_patches(x, kernel, **geometry)
    return format.linear(columns).transpose(1, 2).unflatten(2, out)
