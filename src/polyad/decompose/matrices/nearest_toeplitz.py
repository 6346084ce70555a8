"""The closest matrix with constant diagonals."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import Toeplitz


@method(
    "decompose",
    makes=Toeplitz,
    example={"x": (6, 4)},
    papers=(
        Paper(
            "Cadzow",
            1988,
            "Signal enhancement: a composite property mapping algorithm",
            "doi:10.1109/29.1488",
            adds="the projection: means along the diagonals",
        ),
    ),
)
def nearest_toeplitz(x: Tensor) -> Toeplitz:
    """The Toeplitz matrix closest to x in the Frobenius norm: the means along its diagonals.

    x has shape (*batch, n, m). Optimal, as the orthogonal projection. Keeps x's dtype; half precision is computed in
    float32. Cost: one pass over x and a padded copy of min(n, m) (n + m) numbers. Gradients flow to x. Raises
    ValueError for NaN and infinities.

    >>> nearest_toeplitz(torch.tensor([[1.0, 2.0], [4.0, 3.0]])).diagonals
    tensor([2., 2., 4.])
    """
    _check.floating("x", x)
    _check.finite("x", _check.dimensions("x", x, 2))
    m = x.shape[-1]
    work = x if x.dtype in (torch.float32, torch.float64) else x.float()
    counts = Toeplitz(work.new_empty(x.shape[-2] + m - 1), m).counts()
    return Toeplitz(diagonal_sums(work, counts).to(x.dtype), m)


def diagonal_sums(x: Tensor, divisor: Tensor) -> Tensor:
    """The sums along the diagonals of x (*batch, n, m), upper right first, each number divided before it is added.

    >>> diagonal_sums(torch.tensor([[1.0, 2.0], [4.0, 3.0]]), torch.ones(3))
    tensor([2., 4., 4.])
    """
    # Rows of m + n, read again as rows of m + n - 1, move one step to the right from each to the next: an entry of
    # the mirrored x lands in the column of its diagonal.
    n, m = x.shape[-2:]
    if n > m:  # the copy has a row for each of x's
        return diagonal_sums(x.mT, divisor.expand(n + m - 1).flip(-1)).flip(-1)
    shifted = F.pad(x.flip(-1), (0, n)).flatten(-2)[..., : n * (n + m - 1)].unflatten(-1, (n, n + m - 1))
    return (shifted / divisor).sum(-2)
