"""The best approximation of a matrix by one of lower rank."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad._card import Paper, method
from polyad.formats import LowRank
from polyad.linalg import evenly, truncated_svd
from polyad.linalg.metric import tails


def spectrum(weight: Tensor, stats: object = None) -> Tensor:  # noqa: ARG001
    """Squared error that each rank 0, 1, … leaves of a matrix; float64. The data plays no part."""
    return tails(torch.linalg.svdvals(weight.to(torch.promote_types(weight.dtype, torch.float32))).double().square())


@method(
    "decompose",
    makes=LowRank,
    curve=spectrum,
    example={"x": (6, 5), "rank": 2},
    papers=(
        Paper(
            "Eckart, Young",
            1936,
            "The approximation of one matrix by another of lower rank",
            "doi:10.1007/BF02288367",
        ),
    ),
)
def svd(x: Tensor, rank: int | None = None, *, tol: float | None = None) -> LowRank:
    """The closest matrix of rank ``rank``, or of the least rank with a relative error of at most ``tol``.

    x has shape (*batch, n, m) and a floating dtype, which the factors keep; half precision is computed in float32.
    Both factors carry the square root of the singular values, so that they have equal norms. A batch with ``tol``
    takes the largest rank needed and pads the others with zeros. Costs, accuracy at ranks far below the size, and
    gradients are those of ``polyad.linalg.truncated_svd``.

    Raises ValueError for a rank beyond the matrix, for NaN and infinities, and unless one of the two is given.

    >>> format = svd(torch.arange(12.0).reshape(3, 4), tol=1e-3)
    >>> format.rank, format.to_dense().round()[2]
    (2, tensor([ 8.,  9., 10., 11.]))
    """
    left, right = evenly(*truncated_svd(x, rank, tol=tol))
    return LowRank(left.to(x.dtype), right.to(x.dtype))
