"""Low rank in each block of a grid, the rank common to all."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad.linalg.svd import evenly, truncated_svd


def block_svd(x: Tensor, rank: int | None = None, *, tol: float | None = None) -> tuple[Tensor, Tensor]:
    """The closest blocks of one rank: x (*batch, J, K, n, m) as left (*batch, J, K, n, r) and right (…, r, m).

    Give ``rank``, or ``tol``: the relative Frobenius error allowed to each grid of the batch, for which the least
    rank common to all of its blocks is taken. Optimal: the error's square is the sum of those of the blocks. Both
    factors carry the square root of the singular values; half precision comes back in float32. Gradients are those
    of ``truncated_svd``, and zero where a singular value is zero.

    >>> left, right = block_svd(torch.ones(2, 2, 3, 4), tol=1e-3)
    >>> left.shape, right.shape
    (torch.Size([2, 2, 3, 1]), torch.Size([2, 2, 1, 4]))
    """
    u, s, vh = truncated_svd(x, min(x.shape[-2:]) if rank is None else min(rank, *x.shape[-2:]))
    if tol is not None:
        r = _common_rank(s, tol)
        u, s, vh = u[..., :r], s[..., :r], vh[..., :r, :]
    return evenly(u, s, vh)


def block_product_svd(
    left: Tensor, right: Tensor, rank: int | None = None, *, tol: float | None = None
) -> tuple[Tensor, Tensor]:
    """``block_svd`` of left @ right, of shapes (*batch, J, K, n, q) and (*batch, J, K, q, m), which is not formed."""
    if left.dtype not in (torch.float32, torch.float64):
        left, right = left.float(), right.float()
    q, first = torch.linalg.qr(left)
    p, second = torch.linalg.qr(right.mT)
    inner, outer = block_svd(first @ second.mT, rank, tol=tol)
    return q @ inner, outer @ p.mT


def _common_rank(s: Tensor, tol: float) -> int:
    """The least rank of all blocks that keeps the error of every grid of the batch within ``tol``."""
    top = s.detach().double().amax((-3, -2, -1), keepdim=True)
    squares = (s.detach().double() / torch.where(top > 0, top, 1)).square().sum((-3, -2))  # (*batch, q)
    left = squares.flip(-1).cumsum(-1).flip(-1)
    return max(1, int((left > tol**2 * left[..., :1]).sum(-1).max()))
