"""Sums of Kronecker products for matrices of which some entries are missing."""

from __future__ import annotations

from torch import Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import method
from polyad.decompose.matrices.kronecker_svd import first_shape, rearrange_blocks
from polyad.decompose.matrices.masked_als import LU, alternate_factors, prepare
from polyad.formats import Kronecker


@method("decompose", makes=Kronecker, example={"x": (6, 8), "rank": 2}, papers=(LU,))
def kronecker_als(
    x: Tensor,
    rank: int,
    *,
    mask: Tensor | None = None,
    shape_of_first: tuple[int, int] | None = None,
    ridge: float = 0.0,
    max_iter: int = 500,
    stop: float = 1e-4,
    callback: Callback | None = None,
) -> Kronecker:
    """A sum of ``rank`` Kronecker products near the entries of x that ``mask`` marks, by alternating least squares.

    x has shape (*batch, a b, c d), ``shape_of_first`` is (a, c) as in ``kronecker_svd``, which this is without a
    mask. Reordered block by block, x is near a matrix (a c, b d) of that rank, and ``masked_als`` says the rest:
    mask, ridge, cost, end and callback. The paper solves for one product, the reordering serves any number of them.

    >>> x = torch.kron(torch.ones(3, 2), torch.arange(12.0).reshape(3, 4))
    >>> seen = torch.rand(9, 8, generator=torch.Generator().manual_seed(0)) < 0.6
    >>> fit = kronecker_als(x.where(seen, torch.nan), 1, mask=seen, shape_of_first=(3, 2))
    >>> bool((fit.to_dense() - x).norm() < 1e-4 * x.norm())
    True
    """
    _check.iterations(max_iter, stop)
    work, weight, scale = prepare(x, mask, ridge)
    a, c = first_shape(x, shape_of_first)
    rows = rearrange_blocks(work, (a, c))
    _check.rank(rank, min(rows.shape[-2:]), f"what blocks of a matrix of shape {tuple(x.shape[-2:])} allow")
    weights = None if weight is None else rearrange_blocks(weight, (a, c))
    left, right = (
        part * scale.sqrt() for part in alternate_factors(rows, weights, rank, ridge, max_iter, stop, callback)
    )
    first = left.mT.unflatten(-1, (a, c)).contiguous()
    second = right.mT.unflatten(-1, (x.shape[-2] // a, x.shape[-1] // c)).contiguous()
    return Kronecker(first.to(x.dtype), second.to(x.dtype))
