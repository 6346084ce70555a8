"""Low-rank approximation of a matrix of which some entries are missing."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.decompose.alternating.row_squares import has_converged, solve_rows
from polyad.decompose.alternating.seen_entries import check_mask
from polyad.formats import LowRank
from polyad.linalg import truncated_svd

LU = Paper("Lu", 2024, "Low-Rank Approximation, Adaptation, and Other Tales", "arXiv:2408.05883", "lowrank-tales")
"""The survey whose alternating solvers these are."""


@method("decompose", makes=LowRank, example={"x": (3, 7, 6), "rank": 2}, papers=(LU,))
def masked_als(
    x: Tensor,
    rank: int,
    *,
    mask: Tensor | None = None,
    ridge: float = 0.0,
    max_iter: int = 500,
    stop: float = 1e-4,
    callback: Callback | None = None,
) -> LowRank:
    """A matrix of rank ``rank`` near the entries of x that ``mask`` marks as seen, by alternating least squares.

    x has shape (*batch, n, m), ``mask`` is boolean of the same shape; what x holds where it is False is not read,
    NaN included. Minimised is ``Σ_seen (x - U V)² + ridge * s (|U|² + |V|²)``, with s the root mean square of the
    entries seen, so that the result scales with x. Each half sweep solves a small system a row, and never raises the
    objective. The start is the truncated singular value decomposition of x with zeros for what is missing, which
    without a mask is already the answer.

    The factors keep x's dtype; half precision is computed in float32. A sweep costs about n m r² operations, all in
    matrix products. It ends after ``max_iter`` sweeps, or when one lowers no error by more than the share ``stop``.
    ``callback(sweep, max_iter, {"error": …})`` follows each with the largest relative error over entries seen. The
    result has no gradient. Rows without a single entry seen come out as zero.

    Raises ValueError for a rank beyond the matrix, a mask of another shape or of another dtype than bool, a negative
    ridge, and NaN and infinities among the entries seen.

    >>> planted = LowRank.random((9, 8), generator=torch.Generator().manual_seed(0))
    >>> x = planted.to_dense()[:, :7] @ torch.ones(7, 8)
    >>> seen = torch.rand(9, 8, generator=torch.Generator().manual_seed(1)) < 0.7
    >>> fit = masked_als(x.where(seen, torch.nan), 1, mask=seen)
    >>> bool((fit.to_dense() - x).norm() < 1e-4 * x.norm())
    True
    """
    _check.iterations(max_iter, stop)
    work, weight, scale = prepare(x, mask, ridge)
    _check.rank(rank, min(x.shape[-2:]), f"what a matrix of shape {tuple(x.shape[-2:])} has")
    left, right = alternate_factors(work, weight, rank, ridge, max_iter, stop, callback)
    root = scale.sqrt()
    return LowRank((left * root).to(x.dtype), (right * root).mT.contiguous().to(x.dtype))


def prepare(x: Tensor, mask: Tensor | None, ridge: float) -> tuple[Tensor, Tensor | None, Tensor]:
    """x with zeros where unseen, of unit root mean square where seen; the weights; and the scale taken out."""
    _check.floating("x", x)
    _check.dimensions("x", x, 2)
    if ridge < 0:
        raise ValueError(f"ridge={ridge} is negative; give 0 or a small positive number, such as 0.01")
    if mask is not None:
        check_mask(mask, x)
    x = x.detach()
    entries = x if mask is None else x.where(mask, 0)
    _check.finite("x" if mask is None else "x where mask is True,", entries)
    work = entries if x.dtype in (torch.float32, torch.float64) else entries.float()
    count = x.shape[-1] * x.shape[-2] if mask is None else mask.sum((-2, -1), keepdim=True).clamp(min=1)
    peak = work.abs().amax((-2, -1), keepdim=True)
    unit = work / peak.where(peak > 0, 1)
    size = (unit.square().sum((-2, -1), keepdim=True) / count).sqrt()
    size = size.where(size > 0, 1)
    return unit / size, None if mask is None else mask.to(work.dtype), size * peak


def alternate_factors(
    x: Tensor,
    weight: Tensor | None,
    rank: int,
    ridge: float,
    max_iter: int,
    stop: float,
    callback: Callback | None,
) -> tuple[Tensor, Tensor]:
    """U (*batch, n, r) and V (*batch, m, r) with U Vᵀ near x where weight is one; x must be zero elsewhere."""
    u, s, vh = truncated_svd(x, rank)
    share = 1.0 if weight is None else weight.mean((-2, -1), keepdim=True).clamp(min=1 / (x.shape[-2] * x.shape[-1]))
    root = s.sqrt().unsqueeze(-2)
    left, right = u * root / share, vh.mT * root
    if weight is None and not ridge:
        return left, right
    across = None if weight is None else weight.mT
    total = x.square().sum((-2, -1))
    error = relative_errors(x, weight, left @ right.mT, total)
    for sweep in range(max_iter):
        left = solve_rows(right, weight, x, left, ridge)
        right = solve_rows(left, across, x.mT, right, ridge)
        before, error = error, relative_errors(x, weight, left @ right.mT, total)
        if callback is not None:
            callback(sweep, max_iter, {"error": float(error.max())})
        if has_converged(before, error, stop, torch.finfo(x.dtype).eps):
            break
    return left, right


def relative_errors(x: Tensor, weight: Tensor | None, model: Tensor, total: Tensor) -> Tensor:
    """Relative errors over the entries seen, of shape (*batch)."""
    rest = x - (model if weight is None else model * weight)
    return (rest.square().sum((-2, -1)) / total.where(total > 0, 1)).sqrt()
