"""Products of a few rows with a matrix of codes, whose scales and zero points go to the rows."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

FEW = 8
"""Up to this many rows; for more, restoring the matrix first costs little beside the product."""


def folds(size: tuple[int, ...], block: tuple[int, ...], x: Tensor) -> bool:
    """Whether ``x`` is few rows, and the blocks such that ``fold`` can tell the codes from their scales."""
    rows = x.numel() // x.shape[-1] if len(size) == 2 else x.shape[-2] if x.ndim == len(size) else FEW + 1
    even = all(n % b == 0 for n, b in zip(size, block, strict=True))
    return 0 < rows <= FEW and even and max(block[:-2], default=1) == 1 and max(block[-2:]) > 1


def fold(codes: Tensor, scale: Tensor, zero: Tensor | float, tall: int, x: Tensor) -> Tensor:
    """``x @ ((codes - zero) * scale).mT`` in x's dtype, without a pass over the codes for either.

    Codes (*batch, n, m), all numbers of one dtype; scales (*batch, n / tall, M), for blocks of ``tall`` rows and
    m / M columns; x (*batch, rows, m), or any (…, m) with no batch. Where rows of the matrix share a scale, x is
    multiplied by it, once for each block of them; where they do not, the scale comes after the product. A zero point
    takes a sum of x. The terms are larger than the result by the size of the zero point, and so is the rounding.
    """
    shape = (*x.shape[:-1], codes.shape[-2])
    work = x.reshape(-1, x.shape[-1]).to(codes.dtype) if codes.ndim == 2 else x.to(codes.dtype)
    rows = work.shape[-2]
    if rows % 4 == 3:  # whose products take a third longer than those of one row more
        work = F.pad(work, (0, 0, 0, 1))
    wide = codes.shape[-1] // scale.shape[-1]
    part = _after if tall == 1 else _before
    out = part(codes, scale, zero, tall if tall > 1 else wide, work)
    return out[..., :rows, :].to(x.dtype).reshape(shape)


def _before(codes: Tensor, scale: Tensor, zero: Tensor | float, tall: int, x: Tensor) -> Tensor:
    wide = codes.shape[-1] // scale.shape[-1]
    lift = [t if isinstance(t, float) or wide == 1 else t.repeat_interleave(wide, -1) for t in (scale, zero)]
    x = x.unsqueeze(-3) * lift[0].unsqueeze(-2)  # (*batch, blocks, rows, m)
    shift = x.sum(-1) * zero if isinstance(zero, float) else (x * lift[1].unsqueeze(-2)).sum(-1)
    out = x @ codes.unflatten(-2, (-1, tall)).mT - shift.unsqueeze(-1)
    return out.transpose(-3, -2).flatten(-2)


def _after(codes: Tensor, scale: Tensor, zero: Tensor | float, wide: int, x: Tensor) -> Tensor:
    x = x.unflatten(-1, (-1, wide)).transpose(-3, -2)  # (*batch, blocks, rows, wide)
    shift = zero if isinstance(zero, float) else zero.mT.unsqueeze(-2)
    out = x @ codes.unflatten(-1, (-1, wide)).transpose(-3, -2).mT - x.sum(-1, keepdim=True) * shift
    out = out * scale.mT.unsqueeze(-2)
    return out.squeeze(-3) if out.shape[-3] == 1 else out.sum(-3)
