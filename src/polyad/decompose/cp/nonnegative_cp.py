"""Sums of non-negative outer products."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.decompose.alternating.extrapolation import (
    EXTRAPOLATION,
    alternate,
    balance_components,
    random_factors,
    unit,
)
from polyad.decompose.alternating.mttkrp import mttkrp_sweep
from polyad.decompose.alternating.nonnegative_updates import (
    ACCELERATED,
    ROW_SOLVERS,
    SOLVERS,
    check_signs,
    check_update,
)
from polyad.decompose.alternating.own_start import check_not_negative
from polyad.decompose.alternating.seen_entries import apply_mask
from polyad.decompose.cp._arguments import check_rank_or_tol
from polyad.decompose.cp._form import fibre_terms
from polyad.decompose.cp._own_start import check_start, refine_start
from polyad.decompose.cp._tolerance_rank import dense_error, search_rank
from polyad.formats import CP


@method(
    "decompose",
    makes=CP,
    example={"rank": 2},
    papers=(
        Paper(
            "Cichocki, Phan",
            2009,
            "Fast Local Algorithms for Large Scale Nonnegative Matrix and Tensor Factorizations",
            "doi:10.1587/transfun.E92.A.708",
        ),
        ACCELERATED,
        EXTRAPOLATION,
    ),
)
def nonnegative_cp(
    x: Tensor,
    rank: int | None = None,
    *,
    tol: float | None = None,
    mask: Tensor | None = None,
    batch: int = 0,
    init: CP | None = None,
    fixed: Sequence[int] = (),
    update: Literal["hals", "mu"] = "hals",
    max_iter: int = 200,
    stop: float = 1e-8,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> CP:
    """A sum of ``rank`` outer products of vectors without negative entries, close to x in the Frobenius norm.

    x has shape (*batch dimensions, I₁, …, I_N) with N ≥ 2; ``batch`` says how many dimensions lead. Negative
    entries of x are allowed with ``update="hals"`` (the sum stays non-negative) and refused with "mu", the
    multiplicative updates, which are slower in almost every case. ``tol`` instead of a rank looks for a small one
    whose relative Frobenius error is at most that, by growing ranks and then bisection; a batch takes the rank that
    its worst tensor needs.

    ``mask``, of bools in x's shape, is True where an entry was seen; what x holds elsewhere is not read, NaN
    included, and errors are those of entries seen. Each row of a factor then has normal equations of its own, which
    makes a sweep about (R + 1) / 2 times as long. Rows without any entry seen come out as zero.

    A sweep takes two matrix products with x whatever N is, 4 R numel(x) operations, and in each mode eight updates
    of all components for R² I_n multiplications and additions each. Sweeps end after ``max_iter``, or when two in a
    row change the relative squared error by no more than ``stop`` in all tensors; factors of the least error are
    returned. That error is a difference, exact to about the root of the dtype's epsilon. ``callback(sweep,
    max_iter, {"error": …})`` gets the least so far, the root of the mean over the batch.

    ``init``, a CP of x's shape without negative entries, is where to start instead of random factors. Factors of the
    modes in ``fixed`` stay as they are there.

    The factors have x's dtype, half precision being computed in float32, and equal norms in all modes; no weights.
    Not differentiable: x is detached. The start is uniform, from ``generator`` (None: always the same).

    Departs from Ang et al. in that steps are taken back to the factors before they were moved on, for all modes at
    once, and in a fixed number of updates per factor.

    Raises ValueError for NaN and infinities where x was seen, for a rank that no tensor of this shape needs, numel /
    max(I_n), unless one of rank and tol is given, and for a tol that negative entries keep from being reached.

    >>> planted = CP(tuple(torch.arange(1.0, 1 + 2 * n).reshape(n, 2) % 5 for n in (4, 5, 6)))
    >>> fit = nonnegative_cp(planted.to_dense(), 2)
    >>> error = (fit.to_dense() - planted.to_dense()).norm() / planted.to_dense().norm()
    >>> bool(error < 1e-2), all(bool((factor >= 0).all()) for factor in fit.factors)
    (True, True)
    """
    _check.iterations(max_iter, stop)
    if isinstance(x, Tensor) and (init is not None or len(fixed)):
        rank = check_start(x, rank, tol, batch, init, fixed)
    shape = check_rank_or_tol(x, rank, tol, batch)
    check_update(update)
    half = x.dtype not in (torch.float32, torch.float64)
    dense = x.detach().to(torch.float32 if half else x.dtype)
    dense, mask = apply_mask(dense, mask)
    check_signs(update, dense)
    dense = dense.reshape(-1, *shape).contiguous()
    work, scale = unit(dense)  # refuses NaN and infinities in the pass that it makes anyway
    mask_sweep = None if mask is None else partial(mttkrp_sweep, mask.reshape(work.shape).to(work.dtype))
    update_factor, keep = (SOLVERS if mask is None else ROW_SOLVERS)[update]
    alive = (torch.linalg.vector_norm(work.flatten(1), dim=1) > 0).view(-1, 1, 1)

    def refine(start: list[Tensor]) -> list[Tensor]:
        return alternate(
            partial(mttkrp_sweep, work), update_factor, [row.to(work.dtype) for row in start], keep=keep,
            max_iter=max_iter, stop=stop, callback=callback, mask_sweep=mask_sweep, fixed=fixed,
        )[0]  # fmt: skip

    if init is not None:
        check_not_negative(init)
        return refine_start(init, scale, fixed, x.dtype, refine)

    def fit(r: int) -> CP:
        start = random_factors(shape, r, len(work), work, generator, signed=False)
        return _as_cp(balance_components([factor * alive for factor in refine(start)], scale), x, batch)

    if rank is not None:
        return fit(rank)
    assert tol is not None
    _refuse_unreachable(work, tol)
    one = torch.ones(len(work), dtype=torch.float64, device=x.device)
    rows = fibre_terms(dense.clamp(min=0))

    def whole() -> CP:
        return _as_cp(balance_components([row.squeeze(1) for row in rows], one), x, batch)

    return search_rank(fit, whole, rows[0].shape[2], tol, lambda model: dense_error(dense, model, mask=mask))


def _as_cp(factors: tuple[Tensor, ...], x: Tensor, batch: int) -> CP:
    """Factors (b, I_n, R) with x's leading dimensions and dtype."""
    return CP(tuple([f.to(x.dtype).reshape(*x.shape[:batch], *f.shape[1:]) for f in factors]))


def _refuse_unreachable(x: Tensor, tol: float) -> None:
    """Refuse tolerances below what the negative entries alone leave, for x (b, …) of norm 1."""
    below = float(torch.linalg.vector_norm(x.clamp(max=0).flatten(1), dim=1, dtype=torch.float64).max())
    if below > tol:
        raise ValueError(
            f"tol={tol} cannot be reached: x has negative entries, and without them no error is below {below:.3g}; "
            "ask for more, or use cp_als, whose factors have signs"
        )
