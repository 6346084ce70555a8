"""The tensor ring decomposition by alternating least squares."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import method
from polyad.decompose.alternating.extrapolation import unit
from polyad.decompose.alternating.row_squares import has_converged, solve_squares
from polyad.decompose.trains._chain_sweeps import misfit, sweep_cores
from polyad.decompose.trains.tr_svd import ZHAO, tr_svd
from polyad.formats import TensorRing
from polyad.formats.networks.tensor_train import bond_ranks

Run = Callable[..., tuple[list[Tensor], Tensor]]


@method("decompose", makes=TensorRing, example={"rank": 2, "restarts": 1, "max_iter": 40}, papers=(ZHAO,))
def tr_als(
    x: Tensor,
    rank: int | Sequence[int] | None = None,
    *,
    tol: float | None = None,
    start: TensorRing | None = None,
    restarts: int = 3,
    batch: int = 0,
    stop: float = 1e-5,
    max_iter: int = 500,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> TensorRing:
    """A tensor ring near x: the best of several starts, each core in turn solving its least-squares problem.

    x has shape (*batch, I₁, …, I_N) with N ≥ 2 and ``batch`` leading dimensions that count tensors. ``rank`` gives
    (r_0, …, r_{N-1}), r_n to the left of mode n, or one number for all. The starts are ``tr_svd`` of these ranks and
    ``restarts`` random rings, drawn by ``generator``; none stands for a fixed seed. A ``start`` of your own is
    refined alone, and its ranks are kept. ``tol`` instead tries rings of equal ranks 1, 2, … until one is within that
    relative Frobenius error, and takes ``tr_svd`` where none with fewer numbers is.

    A sweep renews every core; it solves with the Gram matrix of all others, to which a hair of the distance from the
    old core is added, so that nothing is singular and no sweep raises the error. A start ends after ``max_iter``
    sweeps, or when one lowers no error by more than the share ``stop``. Nothing tells whether it ended in the best
    ring: convergence may be slow, and random starts differ. The result is detached from x and has its dtype; half
    precision is computed in float32, and all that is small in float64. Of 21 random rings of up to six modes and
    ranks of 2 to 4, exactly given in float64, 20 were found to all digits; from ``tr_svd`` alone 17.

    Costs about 6 r² ΠI operations a sweep, and solving with N matrices of r² by r². ``callback(sweep, max_iter,
    {"error": …})`` follows each sweep with the largest relative error of the batch. Departs from the paper in
    sharing products between modes, in the hair, and in the random starts beside its own.

    Raises ValueError for NaN and infinities, ranks below 1, and unless one of rank, tol and start is given.

    >>> planted = TensorRing.random((6, 5, 4), generator=torch.Generator().manual_seed(0))
    >>> fit = tr_als(planted.to_dense(), rank=2)
    >>> fit.rank, bool((fit.to_dense() - planted.to_dense()).norm() < 1e-4 * planted.to_dense().norm())
    ((2, 2, 2), True)
    """
    _check.iterations(max_iter, stop)
    _check.floating("x", x)
    _check.batch(batch, x, 2)
    _check.exactly_one(rank=rank, tol=tol, start=start)
    _check.at_least("restarts", restarts, 0)
    lead, sizes = x.shape[:batch], tuple(x.shape[batch:])
    single = x.detach() if x.dtype in (torch.float32, torch.float64) else x.detach().float()
    work, norm = unit(single.reshape(-1, *sizes))
    generator = generator or Generator(x.device).manual_seed(0)

    run = partial(_run, work, stop=stop, max_iter=max_iter, callback=callback)
    solve = partial(_best_of_starts, work, restarts=restarts, generator=generator, run=run)
    if start is not None:
        cores = run(_start_cores(start, x, norm))[0]
    elif rank is not None:
        ranks = bond_ranks(rank, len(sizes), f"a ring of shape {sizes}")
        _refuse_wide_cores(rank, ranks, math.prod(sizes))
        cores = solve(ranks)[0]
    else:
        assert tol is not None
        cores = _ring_within(work, tol, solve)
    even = norm.pow(1 / len(sizes))[:, None, None, None]
    cores = [(core * even).to(x.dtype).reshape(*lead, *core.shape[1:]) for core in _balance_cores(cores)]
    return TensorRing(tuple(cores))


def _best_of_starts(
    x: Tensor, ranks: tuple[int, ...], restarts: int, generator: Generator, run: Run
) -> tuple[list[Tensor], Tensor]:
    """Each tensor's best ring of x (b, …) and its error: from the decomposition by SVDs, and from random starts."""
    first = tr_svd(x, ranks, batch=1).cores
    pairs = list(zip(ranks, (*ranks[1:], ranks[0]), strict=True))
    starts = [[_widen(core, pair, generator) for core, pair in zip(first, pairs, strict=True)]]
    for _ in range(restarts):
        starts.append([_random_core(x, n, pair, generator) for n, pair in zip(x.shape[1:], pairs, strict=True)])
    best, least = run(starts[0])
    for cores in starts[1:]:
        if bool((least <= 8 * torch.finfo(x.dtype).eps).all()):
            break
        refined, error = run(cores)
        best = _where(error < least, refined, best)
        least = torch.minimum(error, least)
    return best, least


def _refuse_wide_cores(rank: int | Sequence[int], ranks: tuple[int, ...], numbers: int) -> None:
    most = max(r * s for r, s in zip(ranks, (*ranks[1:], ranks[0]), strict=True))
    if most > 4 * max(16, numbers):  # what is solved is of this size squared
        said = f"rank={rank} asks for cores of {most:,} numbers a row, where x has {numbers:,} in all"
        raise ValueError(f"{said}; choose smaller ranks")


def _ring_within(x: Tensor, tol: float, solve: Run) -> list[Tensor]:
    """The ring of least equal ranks within ``tol``, or that of singular value decompositions if that is smaller."""
    whole = tr_svd(x, tol=tol, batch=1)
    sizes = x.shape[1:]
    for r in range(1, math.isqrt(whole.parameters // (len(x) * sum(sizes))) + 1):
        cores, error = solve((r,) * len(sizes))
        if bool((error <= tol).all()):
            return cores
    return [core.double() for core in whole.cores]


def _run(
    x: Tensor, cores: list[Tensor], stop: float, max_iter: int, callback: Callback | None
) -> tuple[list[Tensor], Tensor]:
    """Sweep over the cores; those of least error on the way, and the errors (b,) of x, of norm 1."""
    flat = x.flatten(1)
    best = _balance_cores(cores)
    least = error = misfit(flat, best)
    cores = list(best)
    for iteration in range(max_iter):
        transfers = [_transfer(core) for core in cores]

        def renew(n: int, w: Tensor, cores: list[Tensor] = cores, transfers: list[Tensor] = transfers) -> None:
            r, s = w.shape[1], w.shape[3]
            gram = reduce(torch.matmul, [*transfers[n + 1 :], *transfers[:n]])  # (b, s s', r r')
            gram = gram.unflatten(1, (s, s)).unflatten(3, (r, r)).permute(0, 3, 1, 4, 2).reshape(-1, r * s, r * s)
            right, old = (t.transpose(1, 2).flatten(2) for t in (w.double(), cores[n]))
            solution = solve_squares(gram, right, old)
            cores[n] = solution.unflatten(2, (r, s)).transpose(1, 2).contiguous()
            transfers[n] = _transfer(cores[n])

        sweep_cores(flat, cores, renew)
        cores = _balance_cores(cores)
        before, error = error, misfit(flat, cores)
        best = _where(error < least, cores, best)
        least = torch.minimum(least, error)
        if callback is not None:
            callback(iteration, max_iter, {"error": float(error.max())})
        if has_converged(before, error, stop, torch.finfo(x.dtype).eps):
            break
    return best, least


def _transfer(core: Tensor) -> Tensor:
    """A core with itself over its mode, from pairs of left bonds to pairs of right ones, (b, r r, s s)."""
    return torch.einsum("zris,ztiu->zrtsu", core, core).flatten(3).flatten(1, 2)


def _where(choice: Tensor, new: list[Tensor], old: list[Tensor]) -> list[Tensor]:
    """The new cores of the tensors chosen (b,), the old ones of the others."""
    return [torch.where(choice[:, None, None, None], a, b) for a, b in zip(new, old, strict=True)]


def _balance_cores(cores: Sequence[Tensor]) -> list[Tensor]:
    """Give the cores equal norms, with the same product; all zero where one is."""
    norms = torch.stack([core.flatten(1).norm(dim=1) for core in cores])
    even = norms.log().mean(0).exp()
    gains = torch.where((norms > 0).all(0), even / norms, 0)
    return [core * gain[:, None, None, None] for core, gain in zip(cores, gains, strict=True)]


def _random_core(x: Tensor, n: int, pair: tuple[int, int], generator: Generator) -> Tensor:
    """A random core, the same for every tensor of the batch, so that each is decomposed as it would be alone."""
    r, s = pair
    core = torch.randn(r, n, s, generator=generator, dtype=torch.float64, device=generator.device)
    return core.to(x.device).expand(len(x), r, n, s)


def _widen(core: Tensor, pair: tuple[int, int], generator: Generator) -> Tensor:
    """Widen a core to these bonds, with small random numbers where it has none."""
    wide = _random_core(core, core.shape[2], pair, generator)
    wide = wide * 0.1 * core.double().square().mean((1, 2, 3), keepdim=True).sqrt()
    wide[:, : core.shape[1], :, : core.shape[3]] = core.double()
    return wide


def _start_cores(start: TensorRing, x: Tensor, norm: Tensor) -> list[Tensor]:
    """Check the ring to start from; its cores, of x / norm."""
    if start.shape != tuple(x.shape) or len(start.cores) < 2:
        raise ValueError(f"start has shape {start.shape}; a ring of x's shape {tuple(x.shape)} is needed")
    cores = [_check.finite("start", core.detach()).double().reshape(-1, *core.shape[-3:]) for core in start.cores]
    cores[-1] = cores[-1] / norm[:, None, None, None]
    return cores
