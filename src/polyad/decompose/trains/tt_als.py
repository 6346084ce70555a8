"""Tensor trains by alternating least squares, one core at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.decompose.alternating.extrapolation import unit
from polyad.decompose.alternating.row_squares import has_converged
from polyad.decompose.trains._chain_sweeps import misfit, sweep_cores
from polyad.decompose.trains.tt_svd import tt_svd
from polyad.formats import TensorTrain
from polyad.linalg import trains


@method(
    "decompose",
    makes=TensorTrain,
    example={"rank": 2},
    papers=(
        Paper(
            "Holtz, Rohwedder, Schneider",
            2012,
            "The alternating linear scheme for tensor optimization in the tensor train format",
            "doi:10.1137/100818893",
        ),
    ),
)
def tt_als(
    x: Tensor,
    rank: int | Sequence[int] | None = None,
    *,
    tol: float | None = None,
    start: TensorTrain | None = None,
    batch: int = 0,
    stop: float = 1e-5,
    max_iter: int = 50,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> TensorTrain:
    """A tensor train near x, refined core by core: each in turn is the best there is while all others stay.

    x has shape (*batch, I₁, …, I_N) with ``batch`` leading dimensions that count tensors, which are refined side by
    side. ``rank`` gives a number for each bond, or one for all, and ``tol`` ranks for which ``tt_svd`` stays within
    that relative Frobenius error: its train is the start, and is improved on. A ``start`` of your own keeps its
    ranks, except that no bond stays larger than the shape permits.

    All cores but the one that is renewed are orthonormal, to the left before it and to the right behind it, so the
    least-squares problem is solved by x contracted with them: nothing is inverted, and no step raises the error. A
    sweep goes to the last core and back. Sweeps end after ``max_iter``, or when one lowers no error by more than the
    share ``stop``. The first core of the result carries the norm. It is detached from x and has x's dtype; half
    precision is computed in float32.

    Costs four products of x with chains of r vectors a sweep, 2 r ΠI operations each. ``generator`` is what
    ``tt_svd`` draws with; ``callback(sweep, max_iter, {"error": …})`` follows each sweep with the largest relative
    error of the batch.

    Raises ValueError for NaN and infinities, ranks below 1, and unless one of rank, tol and start is given.

    >>> planted = TensorTrain.random((6, 5, 4, 6), generator=torch.Generator().manual_seed(0))
    >>> start = TensorTrain.random((6, 5, 4, 6), generator=torch.Generator().manual_seed(1))
    >>> fit = tt_als(planted.to_dense(), start=start)
    >>> fit.rank, bool((fit - planted).norm() < 1e-5 * planted.norm())
    ((3, 4, 3), True)
    """
    _check.iterations(max_iter, stop)
    _check.floating("x", x)
    _check.batch(batch, x, 1)
    _check.exactly_one(rank=rank, tol=tol, start=start)
    if start is not None and start.shape != tuple(x.shape):
        raise ValueError(f"start has shape {start.shape}; a train of x's shape {tuple(x.shape)} is needed")
    lead, sizes = x.shape[:batch], tuple(x.shape[batch:])
    single = x.detach() if x.dtype in (torch.float32, torch.float64) else x.detach().float()
    work, norm = unit(single.reshape(-1, *sizes))
    if start is None:
        cores = tt_svd(work, rank, tol=tol, batch=1, generator=generator).three_way()
    else:
        cores = [_check.finite("start", core.detach()).reshape(-1, *core.shape[-3:]) for core in start.three_way()]
        cores[0] = cores[0] / norm[:, None, None, None]
    cores = _refine(work.flatten(1), [core.double() for core in cores], stop, max_iter, callback)
    cores[0] = cores[0] * norm[:, None, None, None]
    return TensorTrain.from_three_way([core.reshape(*lead, *core.shape[1:]) for core in cores], x)


def _refine(
    x: Tensor,
    cores: list[Tensor],
    stop: float,
    max_iter: int,
    callback: Callback | None,
) -> list[Tensor]:
    """Sweep over x (b, ΠI) of norm 1; cores (b, r, I, s), orthonormal to the right but for the first."""
    cores = trains.orthogonalise_train(cores, 0)
    last = len(cores) - 1

    def forth(n: int, w: Tensor) -> None:
        w = w.double()
        cores[n] = w if n == last else torch.linalg.qr(w.flatten(1, 2)).Q.unflatten(1, w.shape[1:3])

    def back(n: int, w: Tensor) -> None:
        w = w.double()
        cores[n] = w if n == 0 else torch.linalg.qr(w.flatten(2).mT).Q.mT.unflatten(2, w.shape[2:])

    error = misfit(x, cores)
    for iteration in range(max_iter):
        sweep_cores(x, cores, forth)
        sweep_cores(x, cores, back, backwards=True)
        before, error = error, misfit(x, cores)
        if callback is not None:
            callback(iteration, max_iter, {"error": float(error.max())})
        if has_converged(before, error, stop, torch.finfo(x.dtype).eps):
            break
    return cores
