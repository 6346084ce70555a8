"""Unfoldings and mode products of tensors with leading batch dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


def unfold(x: Tensor, mode: int, batch: int = 0) -> Tensor:
    """The matrix (*batch, I_n, product of the others) whose rows are the slices of mode n; a view where it can be.

    >>> import torch
    >>> unfold(torch.arange(12).reshape(2, 3, 2), 1)
    tensor([[ 0,  1,  6,  7],
            [ 2,  3,  8,  9],
            [ 4,  5, 10, 11]])
    """
    if batch + mode == x.ndim - 1:
        return x.flatten(batch, -2).mT if x.ndim > batch + 1 else x.unsqueeze(-1)
    return x.movedim(batch + mode, batch).flatten(batch + 1)


def halfway(sizes: Sequence[int]) -> int:
    """The number of modes to unfold into rows, so that rows and columns together are the fewest.

    >>> halfway((8, 8, 8, 8)), halfway((100, 5, 5))
    (2, 1)
    """
    return min(range(1, len(sizes)), key=lambda k: math.prod(sizes[:k]) + math.prod(sizes[k:]))


def mode_product(x: Tensor, matrix: Tensor, mode: int, batch: int = 0) -> Tensor:
    """``x ×ₙ matrix`` for x of shape (*batch, I₁, …, I_N) and a matrix (*batch, m, I_n): mode n gets m entries.

    One matrix product for the first mode and for the last, products over slices between; x is never permuted.

    >>> import torch
    >>> mode_product(torch.ones(2, 3, 4), torch.ones(5, 3), 1).shape
    torch.Size([2, 5, 4])
    """
    lead, shape = x.shape[:batch], x.shape[batch:]
    before, after = math.prod(shape[:mode]), math.prod(shape[mode + 1 :])
    if after == 1:
        product = x.reshape(*lead, before, shape[mode]) @ matrix.mT
    elif before == 1:
        product = matrix @ x.reshape(*lead, shape[mode], after)
    else:
        product = matrix.unsqueeze(-3) @ x.reshape(*lead, before, shape[mode], after)
    return product.reshape(*lead, *shape[:mode], matrix.shape[-2], *shape[mode + 1 :])
