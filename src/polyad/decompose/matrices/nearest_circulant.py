"""The closest circulant matrix, or matrix of circulant blocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad import _check
from polyad._card import Paper, method
from polyad.decompose.matrices.nearest_toeplitz import diagonal_sums
from polyad.formats import Circulant


@method(
    "decompose",
    makes=Circulant,
    example={"x": (6, 4)},
    papers=(
        Paper(
            "Chan",
            1988,
            "An optimal circulant preconditioner for Toeplitz systems",
            "doi:10.1137/0909051",
            adds="the projection: means along the diagonals that wrap around",
        ),
    ),
)
def nearest_circulant(x: Tensor, *, block: int | None = None) -> Circulant:
    """The matrix of circulant blocks of size ``block`` that is closest to x in the Frobenius norm.

    x has shape (*batch, n, m). ``block`` must divide n and m and is by default their greatest common divisor, so
    that a square x gives one circulant matrix; smaller blocks follow x more closely with more numbers, n m / block.
    Optimal: the means along the diagonals that wrap around are the orthogonal projection.

    Keeps x's dtype; half precision is computed in float32. Cost: one pass over x and a padded copy. Gradients flow
    to x.

    Raises ValueError for a block that does not divide x, and for NaN and infinities.

    >>> nearest_circulant(torch.tensor([[1.0, 2.0], [4.0, 3.0]])).to_dense()
    tensor([[2., 3.],
            [3., 2.]])
    """
    _check.floating("x", x)
    _check.finite("x", _check.dimensions("x", x, 2))
    *lead, n, m = x.shape
    b = math.gcd(n, m) if block is None else block
    if b < 1 or n % b or m % b:
        raise ValueError(
            f"block={b} does not divide x of shape {tuple(x.shape)}; choose a divisor of {math.gcd(n, m)}"
        )
    work = x if x.dtype in (torch.float32, torch.float64) else x.float()
    blocks = work.reshape(*lead, n // b, b, m // b, b).transpose(-3, -2)
    sums = diagonal_sums(blocks, work.new_full((), b))  # of each block; a diagonal wraps to the one b below it
    return Circulant((sums[..., b - 1 :] + F.pad(sums[..., : b - 1], (1, 0))).to(x.dtype))
