"""Products of a few rows with a matrix of codes, whose scales and zero points go to the rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

FEW = 8
"""Up to this many rows; for more, restoring the matrix first costs little beside the product."""


def folds(size: tuple[int, ...], block: tuple[int, ...], x: Tensor) -> bool:
    """True for few rows x and blocks of a shape with which ``fold`` can keep the scales out of the product.

    An exported program serves any number of rows, and so takes the plain path.
    """
    if torch.compiler.is_exporting():
        return False
    rows = x.numel() // x.shape[-1] if len(size) == 2 else x.shape[-2] if x.ndim == len(size) else FEW + 1
    even = all(n % b == 0 for n, b in zip(size, block, strict=True))
    return 0 < rows <= FEW and even and max(block[:-2], default=1) == 1 and max(block[-2:]) > 1


def fold(
    codes: Sequence[Tensor], scale: Tensor, zero: Tensor | float, tall: int, x: Tensor, step: float = 1.0
) -> Tensor:
    """``x @ ((codes - zero) * scale).mT`` in x's dtype, without a pass over the codes for either.

    Codes (*batch, n, m), all numbers of one dtype; scales (*batch, n / tall, M), for blocks of ``tall`` rows and
    m / M columns; x (*batch, rows, m), or any (…, m) with no batch. Where rows of the matrix share a scale, x is
    multiplied by it, once for each block of them, and every p-th row may come in a tensor of its own, (*batch, n / p,
    m), the one after it times ``step`` and so on. Where they do not, the scale comes after the product. A zero point
    takes a sum of x. The terms are larger than the result by the size of the zero point, and so is the rounding.
    """
    like = codes[0]
    shape = (*x.shape[:-1], like.shape[-2] * len(codes))
    work = x.reshape(-1, x.shape[-1]).to(like.dtype) if like.ndim == 2 else x.to(like.dtype)
    rows = work.shape[-2]
    if rows % 4 == 3:  # whose products take a third longer than those of one row more
        work = F.pad(work, (0, 0, 0, 1))
    out = _before(codes, scale, zero, tall, work, step) if tall > 1 else _after(like, scale, zero, work)
    return out[..., :rows, :].to(x.dtype).reshape(shape)


def _before(
    codes: Sequence[Tensor], scale: Tensor, zero: Tensor | float, tall: int, x: Tensor, step: float
) -> Tensor:
    wide = x.shape[-1] // scale.shape[-1]
    x = x.unsqueeze(-3) * _repeat_columns(scale, wide).unsqueeze(-2)  # (*batch, blocks, rows, m)
    weights = x * _repeat_columns(zero, wide).unsqueeze(-2) if isinstance(zero, Tensor) else x * zero
    apart = [x @ part.unflatten(-2, (-1, tall // len(codes))).mT for part in codes]
    out = apart[0]
    if len(codes) > 1:
        out = torch.stack([part * step**-i if i else part for i, part in enumerate(apart)], -1).flatten(-2)
    out = out - weights.sum(-1, keepdim=True)
    return out.squeeze(-3) if out.shape[-3] == 1 else out.transpose(-3, -2).flatten(-2)


def _after(codes: Tensor, scale: Tensor, zero: Tensor | float, x: Tensor) -> Tensor:
    wide = codes.shape[-1] // scale.shape[-1]
    x = x.unflatten(-1, (-1, wide)).transpose(-3, -2)  # (*batch, blocks, rows, wide)
    shift = zero.mT.unsqueeze(-2) if isinstance(zero, Tensor) else zero
    out = x @ codes.unflatten(-1, (-1, wide)).transpose(-3, -2).mT - x.sum(-1, keepdim=True) * shift
    out = out * scale.mT.unsqueeze(-2)
    return out.squeeze(-3) if out.shape[-3] == 1 else out.sum(-3)


def _repeat_columns(t: Tensor, wide: int) -> Tensor:
    return t if wide == 1 else t.repeat_interleave(wide, -1)
