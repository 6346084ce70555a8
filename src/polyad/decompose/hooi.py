"""Higher-order orthogonal iteration for the Tucker decomposition."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import Tucker
from polyad.linalg import left_singular


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
    rank: tuple[int, ...] | None = None,
    *,
    tol: float | None = None,
    max_iter: int = 50,
    stop: float = 1e-8,
    callback: Callable[[int, int | None, dict[str, float]], None] | None = None,
) -> Tucker:
    """A Tucker approximation with orthonormal factors, refined mode by mode until its core stops growing.

    x has shape (I₁, …, I_N) with N ≥ 2 and is one tensor: there are no batch dimensions. ``rank`` gives a number a
    mode; ``tol`` instead takes the least ranks for which the sequentially truncated start stays within that
    relative Frobenius error, which the iterations then lower. They end after ``max_iter`` sweeps, or when one
    lowers the relative squared error by less than ``stop``; 0 sweeps leave the start.

    The factors and the core have x's dtype; half precision is computed in float32. A sweep costs N products of x
    with N - 1 factors each and the leading eigenvectors of N matrices (I_n, I_n). ``callback(sweep, max_iter,
    {"error": …})`` follows each sweep with the relative Frobenius error.

    Departs from the paper in its start, which is truncated mode after mode, the most shrunk first, where the paper
    truncates all modes of x itself.

    Raises ValueError for ranks beyond their mode, NaN and infinities, and unless one of rank and tol is given.

    >>> planted = Tucker.random((6, 5, 4), generator=torch.Generator().manual_seed(0))
    >>> found = hooi(planted.to_dense(), rank=planted.rank)
    >>> found.core.shape, bool((found.to_dense() - planted.to_dense()).norm() < 1e-5 * planted.to_dense().norm())
    (torch.Size([3, 2, 2]), True)
    """
    _check.floating("x", x)
    _check.finite("x", _check.dimensions("x", x, 2))
    _check.exactly_one(rank=rank, tol=tol)
    _check_rank(rank, tuple(x.shape))
    if tol is not None:
        _check.tolerance(tol)
    work = x.detach() if x.dtype in (torch.float32, torch.float64) else x.detach().float()
    factors, core = _start(work, rank, tol)
    total = float(work.double().square().sum())
    error = _error(core, total)
    for sweep in range(max_iter):
        for mode, factor in enumerate(factors):
            others = _project(work, factors, skip=mode)
            factors[mode] = left_singular(_unfold(others, mode), factor.shape[1])[0]
            core = _multiply(others, factors[mode], mode)
        before, error = error, _error(core, total)
        if callback is not None:
            callback(sweep, max_iter, {"error": error**0.5})
        if before - error <= stop:
            break
    return Tucker(core.to(x.dtype).contiguous(), tuple(factor.to(x.dtype) for factor in factors))


def _check_rank(rank: tuple[int, ...] | None, shape: tuple[int, ...]) -> None:
    if rank is None:
        return
    if not isinstance(rank, tuple | list) or len(rank) != len(shape):
        raise ValueError(f"rank={rank} must give one number for each of the {len(shape)} modes of shape {shape}")
    for mode, (r, n) in enumerate(zip(rank, shape, strict=True)):
        _check.rank(r, n, f"mode {mode} of shape {shape}", f"rank[{mode}]")


def _start(x: Tensor, rank: tuple[int, ...] | None, tol: float | None) -> tuple[list[Tensor], Tensor]:
    """The sequentially truncated decomposition: factors by mode, and the core."""
    ratio = [1.0] * x.ndim if rank is None else [r / n for r, n in zip(rank, x.shape, strict=True)]
    factors: list[Tensor] = [x] * x.ndim
    core, left = x, float(x.double().square().sum()) * (tol or 0.0) ** 2
    for place, mode in enumerate(sorted(range(x.ndim), key=lambda mode: (ratio[mode], x.shape[mode]))):
        unfolded = _unfold(core, mode)
        if rank is not None:
            factors[mode] = left_singular(unfolded, rank[mode])[0]
            core = _multiply(core, factors[mode], mode)
            continue
        energy = float(core.double().square().sum())
        share = (left / (x.ndim - place) / energy) ** 0.5 if energy else 0.0
        factors[mode] = left_singular(unfolded, tol=share)[0]
        core = _multiply(core, factors[mode], mode)
        left = max(0.0, left - (energy - float(core.double().square().sum())))
    return factors, core


def _unfold(x: Tensor, mode: int) -> Tensor:
    return x.movedim(mode, 0).flatten(1)


def _multiply(x: Tensor, factor: Tensor, mode: int) -> Tensor:
    """``x ×ₙ factorᵀ``."""
    return (x.movedim(mode, -1) @ factor).movedim(-1, mode)


def _project(x: Tensor, factors: list[Tensor], skip: int) -> Tensor:
    """x multiplied by all factors but one, the one that shrinks it most first."""
    modes = [mode for mode in range(x.ndim) if mode != skip]
    for mode in sorted(modes, key=lambda mode: factors[mode].shape[1] / factors[mode].shape[0]):
        x = _multiply(x, factors[mode], mode)
    return x


def _error(core: Tensor, total: float) -> float:
    """The relative squared error of orthogonal projections that leave this core."""
    return max(0.0, 1 - float(core.double().square().sum()) / total) if total else 0.0
