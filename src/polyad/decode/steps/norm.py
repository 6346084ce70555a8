"""Normalisations of the loop."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad.decode.outline import Norm

FEW = 16
"""Rows up to which a root mean square by way of a layer normalisation is faster on a processor."""


def norm_function(norm: Norm, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """The normalisation of (..., width) in one dtype."""
    weight = None if norm.weight is None else norm.weight.to(dtype)
    bias = None if norm.bias is None else norm.bias.to(dtype)
    inside = weight if weight is not None and weight.ndim == 1 else None
    if weight is None or weight.ndim == 1:
        if norm.kind == "layer":
            return lambda x: F.layer_norm(x, x.shape[-1:], inside, bias, norm.eps)
        root = _root_mean_square(inside, norm.eps)
        return root if bias is None else lambda x: root(x) + bias
    return _by_head(norm, weight, bias)


def _by_head(norm: Norm, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    plain = norm_function(Norm(norm.kind, norm.eps), weight.dtype)

    def apply(x: Tensor) -> Tensor:
        y = plain(x) * weight
        return y if bias is None else y + bias

    return apply


def _root_mean_square(weight: Tensor | None, eps: float) -> Callable[[Tensor], Tensor]:
    """``x / sqrt(mean(x²) + eps) * weight``.

    The mean of x and -x side by side is zero and their variance the mean square of x, and torch's layer normalisation
    is one fast call where its root mean square is a chain of small ones.
    """
    twice = None if weight is None else torch.cat((weight, weight))

    def apply(x: Tensor) -> Tensor:
        width = x.shape[-1]
        if x.is_cuda or x.numel() > FEW * width:
            return F.rms_norm(x, (width,), weight, eps)
        y = F.layer_norm(torch.cat((x, -x), -1), (2 * width,), twice, None, eps).narrow(-1, 0, width)
        return y.contiguous()  # of one row it is

    return apply
