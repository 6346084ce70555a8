"""Higher-order orthogonal iteration for the Tucker decomposition."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.decompose.alternating.seen_entries import apply_mask
from polyad.decompose.tucker._fill_missing import Filling, share_inverse
from polyad.decompose.tucker._own_start import check_start, orthonormal_start
from polyad.decompose.tucker._sweep import apply_factors, sweep_modes
from polyad.decompose.tucker.st_hosvd import st_hosvd
from polyad.formats import Tucker
from polyad.linalg import near_unit, single_or_double, unfold
from polyad.linalg.higher_order import squared_norms
from polyad.linalg.svd import leading_left


@method(
    "decompose",
    makes=Tucker,
    example={"x": (6, 5, 4), "rank": (2, 3, 2)},
    papers=(
        Paper(
            "De Lathauwer, De Moor, Vandewalle",
            2000,
            "On the best rank-1 and rank-(R1, R2, ..., RN) approximation of higher-order tensors",
            "doi:10.1137/S0895479898346995",
        ),
        Paper(
            "Vannieuwenhoven, Vandebril, Meerbergen",
            2012,
            "A new truncation strategy for the higher-order singular value decomposition",
            "doi:10.1137/110836067",
            adds="the sequentially truncated start, whose errors of the modes add up, and with it the ranks for tol",
        ),
    ),
)
def hooi(
    x: Tensor,
    rank: tuple[int, ...] | int | None = None,
    *,
    tol: float | None = None,
    mask: Tensor | None = None,
    batch: int = 0,
    init: Tucker | None = None,
    fixed: Sequence[int] = (),
    max_iter: int = 50,
    stop: float = 1e-8,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> Tucker:
    """A Tucker approximation with orthonormal factors, refined mode by mode until its core stops growing.

    x has shape (*batch, I₁, …, I_N) with N ≥ 2, the first ``batch`` dimensions counting tensors, which are refined
    side by side. ``rank`` gives a number a mode, or one for all, cut to the mode's size; ``tol`` instead takes ranks
    for which the start, ``st_hosvd``, stays within that relative Frobenius error, which the iterations then lower.
    They end after ``max_iter`` sweeps, or when one lowers the relative squared error of no tensor by more than
    ``stop``; 0 sweeps leave the start.

    ``mask``, of bools in x's shape, is True where an entry was seen; what x holds elsewhere is not read, NaN
    included, and errors are those of entries seen. Missing entries are filled with what the model says and a sweep
    follows, again and again; they move on along their last change while that helps. Ranks must be given: no
    tolerance says how many the entries unseen would need. Ask for more sweeps where much is missing.

    ``init``, a Tucker tensor of x's shape, is where to start instead; its ranks are taken, and only the spans of its
    factors matter. The factors of the modes in ``fixed`` stay as they are there, orthonormal or not, and the core is
    the best one for them. With all modes fixed, or in 0 sweeps, x is projected onto the spans.

    The factors and the core have x's dtype, which may be complex; half precision is computed in float32. A
    sweep costs two products of x with the factors of half of the modes each, in which every mode then finds the
    others already applied, and the leading singular vectors of N matrices (I_n, product of the other ranks).
    ``generator`` draws what the start mixes at random. ``callback(sweep, max_iter, {"error": …})`` follows each sweep
    with the largest relative Frobenius error. The result carries no gradient; ``st_hosvd`` does.

    Departs from the paper in its start, which is truncated mode after mode, the most shrunk first, where the paper
    truncates all modes of x itself.

    Raises ValueError for ranks beyond their mode, NaN and infinities that were seen, unless one of rank, tol and
    init is given, for tol with a mask or init, and for an init of another shape or other ranks.

    >>> planted = Tucker.random((6, 5, 4), generator=torch.Generator().manual_seed(0))
    >>> fit = hooi(planted.to_dense(), rank=planted.rank)
    >>> fit.core.shape, bool((fit.to_dense() - planted.to_dense()).norm() < 1e-5 * planted.to_dense().norm())
    (torch.Size([3, 2, 2]), True)
    """
    _check.iterations(max_iter, stop)
    _check.floating("x", x, complex_too=True)
    _check.batch(batch, x, 2)
    ranks = check_start(x, rank, batch, init, fixed)
    _check_tolerance(tol, init, mask)
    single = single_or_double(x.detach())
    single, mask = apply_mask(single, mask)
    work, scale = near_unit(single.contiguous(), x.ndim - batch)
    filled = work if mask is None else work * share_inverse(mask, batch)
    if init is None:
        orthonormal, start = None, st_hosvd(filled, ranks, tol=tol, batch=batch, generator=generator)
    else:
        orthonormal = orthonormal_start(init, fixed, scale, work.dtype)
        start = Tucker(orthonormal.core, tuple(orthonormal.factors))
    core, factors = start.core, list(start.factors)
    fill = None if mask is None else Filling(work, mask, batch, start)
    total = squared_norms(work, batch)
    modes = tuple(range(work.ndim - batch))
    if orthonormal is not None and fill is None:
        core = apply_factors(work, factors, modes, batch)
    error = _error(core, total, batch) if fill is None else fill.error

    def renew(mode: int, y: Tensor) -> Tensor:
        return factors[mode] if mode in fixed else leading_left(unfold(y, mode, batch), factors[mode].shape[-1])[0]

    for sweep in range(max_iter):
        core = sweep_modes(work if fill is None else fill.tensor, factors, modes, batch, renew)
        before, error = error, _error(core, total, batch) if fill is None else fill.renew(core, factors)
        if callback is not None:
            callback(sweep, max_iter, {"error": float(error.max()) ** 0.5})
        if bool((before - error <= stop).all()) and (fill is None or not fill.reset):
            break
    if fill is not None:
        core, factors = fill.best
    if orthonormal is not None:
        core, factors = orthonormal.restore(core, factors, batch)
    if scale is not None:
        core = core * scale[(..., *[None] * len(modes))]
    return Tucker(core.to(x.dtype).contiguous(), tuple(factor.to(x.dtype) for factor in factors))


def _check_tolerance(tol: float | None, init: Tucker | None, mask: Tensor | None) -> None:
    if init is not None and tol is not None:
        raise ValueError(f"tol={tol} was given with init, whose ranks are taken; give one of them")
    if mask is not None and tol is not None:
        raise ValueError(f"tol={tol} was given with a mask, where ranks cannot be found from it; give rank instead")


def _error(core: Tensor, total: Tensor, batch: int) -> Tensor:
    """The relative squared errors (*batch) of orthogonal projections that leave this core."""
    return (1 - squared_norms(core, batch) / torch.where(total > 0, total, 1)).clamp(min=0) * (total > 0)
