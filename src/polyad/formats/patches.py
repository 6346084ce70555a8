"""Patches of a signal as rows, so that a convolution is a product with a matrix."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def unfold(
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
