"""Sums of Khatri-Rao products, also for matrices of which some entries are missing."""

from __future__ import annotations

from torch import Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import method
from polyad.decompose.matrices.masked_als import LU, alternate_factors, prepare
from polyad.formats import KhatriRao
from polyad.formats.structured.grid import balanced_divisor


@method("decompose", makes=KhatriRao, example={"x": (6, 5), "rank": 1}, papers=(LU,))
def khatri_rao_als(
    x: Tensor,
    rank: int,
    *,
    mask: Tensor | None = None,
    rows_of_first: int | None = None,
    ridge: float = 0.0,
    max_iter: int = 500,
    stop: float = 1e-4,
    callback: Callback | None = None,
) -> KhatriRao:
    """A sum of ``rank`` column-wise Kronecker products near the entries of x that ``mask`` marks as seen.

    x has shape (*batch, a b, m) and ``rows_of_first`` is a, by default the divisor nearest to the root of x's rows.
    Each column, as a matrix (a, b), is near one of that rank, independently of the others; without a mask its
    truncated singular value decomposition is the best there is, with one ``masked_als`` solves all columns at once:
    mask, ridge, cost, end and callback are explained there; the error given is that of the worst column. The ridge
    counts in units of the whole of x.

    >>> planted = KhatriRao(torch.rand(1, 4, 3), torch.rand(1, 5, 3))
    >>> fit = khatri_rao_als(planted.to_dense(), 1, rows_of_first=4)
    >>> bool((fit.to_dense() - planted.to_dense()).norm() < 1e-5 * planted.to_dense().norm())
    True
    """
    _check.iterations(max_iter, stop)
    work, weight, scale = prepare(x, mask, ridge)
    rows = x.shape[-2]
    a = rows_of_first or balanced_divisor(rows)
    if not 1 <= a <= rows or rows % a:
        raise ValueError(f"rows_of_first={a} does not divide the {rows} rows of x")
    _check.rank(rank, min(a, rows // a), f"the shorter side of columns of {a} by {rows // a}")
    columns = work.mT.unflatten(-1, (a, -1))  # (*batch, m, a, b)
    weights = None if weight is None else weight.mT.unflatten(-1, (a, -1))
    left, right = alternate_factors(columns, weights, rank, ridge, max_iter, stop, callback)
    root = scale.sqrt().unsqueeze(-1)
    first, second = ((part * root).movedim(-3, -1).transpose(-3, -2).contiguous() for part in (left, right))
    return KhatriRao(first.to(x.dtype), second.to(x.dtype))
