"""CP by alternating least squares: a sweep, the quality of whole calls, a thousand at once, and growth."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.inputs import correlated_cp, planted_cp, seeded
from benchmarks.measuring import Row, Timer, at_least, at_most, clock, faster, growth, peer, per_sweep, take, within
from torch import Tensor

from polyad.decompose import cp_als
from polyad.decompose.cp._sweeps import Sweeps

Start = list[Tensor]  # one matrix (I_n, rank) a mode

NOISE = 1e-3
PLANTED = 1.05 * NOISE
"""A relative error up to this counts as the planted fit."""


def floors(x: Tensor, rank: int) -> dict[str, Timer]:
    """The dimension tree's two large products, x with half of its factors and then with the other half.

    In both ways to ask for them, rows first and columns last; the quicker one is the floor.
    """
    half = x.ndim // 2
    matrix = x.reshape(math.prod(x.shape[:half]), -1)
    first, second = (torch.ones(rank, n, dtype=x.dtype) for n in matrix.shape)
    thin = second.mT.contiguous()
    return {
        "floor, rows first": clock(lambda: (second @ matrix.mT, first @ matrix)),
        "floor, columns last": clock(lambda: (matrix @ thin, first @ matrix)),
    }


def start(shape: tuple[int, ...], rank: int, dtype: torch.dtype) -> Start:
    """Uniform random factors."""
    return [torch.rand(n, rank, generator=seeded(7), dtype=torch.float64).to(dtype) for n in shape]


def our_sweeps(x: Tensor, factors: Start) -> Callable[[int], Any]:
    """Plain sweeps with the account of the error, as the last stage of cp_als makes them."""
    rows = [factor.mT.double()[None, None].contiguous() for factor in factors]
    norm = x.double().norm().view(1)

    def run(count: int) -> None:
        sweeps = Sweeps(x[None], rows, norm, 0.0)
        for _ in range(count):
            sweeps.sweep()

    return run


def peer_sweeps(x: Tensor, factors: Start, row: Row) -> dict[str, Callable[[int], Any]]:
    """The same of every peer that is installed, from the same start."""
    found: dict[str, Callable[[int], Any]] = {}
    rank = factors[0].shape[1]
    if tensorly := peer("tensorly", row):
        from tensorly.decomposition import parafac

        def plain(backend: str, y: Any, init: Any, count: int) -> None:
            with tensorly.backend_context(backend):
                parafac(y, rank, n_iter_max=count, init=(None, [*init]), tol=0)

        arrays = [factor.numpy() for factor in factors]
        found["tensorly torch"] = lambda count: plain("pytorch", x, factors, count)
        found["tensorly numpy"] = lambda count: plain("numpy", x.numpy(), arrays, count)
    if x.dtype == torch.float64 and (pyttb := peer("pyttb", row)):  # it knows no other
        import numpy as np

        y = pyttb.tensor(np.asfortranarray(x.numpy()))
        init = pyttb.ktensor([np.asfortranarray(factor.numpy()) for factor in factors])
        found["pyttb"] = lambda count: pyttb.cp_als(y, rank, stoptol=0, maxiters=count, init=init, printitn=0)
    return found


def sweep(shape: tuple[int, ...], dtype: torch.dtype, rank: int, bars: dict[str, float]) -> Row:
    """One sweep; six more than one, so that what a sweep leaves to the next ones has come round."""
    x, factors, row = planted_cp(shape, rank, noise=1e-2).to(dtype), start(shape, rank, dtype), {}
    few, more = 1, 1 + len(shape) * (len(shape) - 1)
    timers = {"ours": per_sweep(our_sweeps(x, factors), few, more)} | floors(x, rank)
    timers |= {name: per_sweep(run) for name, run in peer_sweeps(x, factors, row).items()}
    samples = take({name: rested(timer) for name, timer in timers.items()})
    floor = min(("floor, rows first", "floor, columns last"), key=lambda name: statistics.median(samples[name]))
    bound = [within(samples, floor, 1.3)] if len(shape) == 3 else []
    return row | {"samples": samples, "facts": {"floor": floor}, "asked": bound + faster(samples, bars)}


def rested(timer: Timer) -> Timer:
    """The timer after a moment in which the threads of the last one, which wait busily, go to sleep."""

    def timed() -> float:
        time.sleep(0.2)
        return timer()

    return timed


def quality(n: int, rank: int, kind: str, seeds: int = 20) -> Row:
    """Whole calls at their defaults on 20 planted tensors, each also by every peer from one random start.

    Asked is the planted fit in all of them, in no more total time than as many median runs of the best peer: the
    one that finds most planted fits, the quicker of equals. The quickest peer, whatever it finds, stands beside.
    """
    row: Row = {}
    solvers = {"ours": lambda _, x: _weighted(cp_als(x, rank)), **_solvers(rank, row)}
    samples: dict[str, list[float]] = {name: [] for name in solvers}
    errors: dict[str, list[float]] = {name: [] for name in solvers}
    for seed in range(-1, seeds):  # the first warms up and does not count
        x = correlated_cp((n,) * 3, rank, kind, noise=NOISE, seed=max(seed, 0))
        found: dict[str, Any] = {}
        timers = {name: clock(functools.partial(solve, seed, x), found, name) for name, solve in solvers.items()}
        seconds = take(timers, turns=1, budget=0, least=1)
        if seed >= 0:
            for name in solvers:
                samples[name] += seconds[name][:1]
                errors[name].append(_error(x, *found[name]))
    planted = {name: sum(e <= PLANTED for e in those) for name, those in errors.items()}
    facts = {"planted": planted, "worst error": {name: max(those) for name, those in errors.items()}}
    asked = [at_least("planted fits", planted["ours"], seeds)]
    others = {name: statistics.median(those) for name, those in samples.items() if name != "ours"}
    if others:
        best, total = min(others, key=lambda name: (-planted[name], others[name])), sum(samples["ours"])
        facts |= {"our total / quickest peer's medians": total / (seeds * min(others.values()))}
        asked.append(at_most(f"our total / medians of {best}", total / (seeds * others[best]), 1.0))
    return row | {"samples": samples, "facts": facts, "asked": asked}


def _weighted(found: Any) -> tuple[Any, Any]:
    return found.weights, found.factors


def _error(x: Tensor, weights: Any, factors: Any) -> float:
    weights = torch.ones(factors[0].shape[1]) if weights is None else torch.as_tensor(weights)
    dense = torch.einsum("ar,br,cr,r->abc", *(torch.as_tensor(factor) for factor in factors), weights.to(x.dtype))
    return float((dense - x).norm() / x.norm())


def _solvers(rank: int, row: Row) -> dict[str, Callable[[int, Tensor], Any]]:
    """Whole decompositions by the peers at their defaults, from one random start: weights and factors."""
    found: dict[str, Callable[[int, Tensor], Any]] = {}
    if peer("tensorly", row):
        from tensorly.decomposition import parafac, randomised_parafac

        found["tensorly numpy"] = lambda seed, x: tuple(
            parafac(x.numpy(), rank, init="random", random_state=max(seed, 0))
        )
        found["tensorly numpy, sampled"] = lambda seed, x: tuple(
            randomised_parafac(x.numpy(), rank, n_samples=50 * rank, init="random", random_state=max(seed, 0))
        )
    if pyttb := peer("pyttb", row):
        import numpy as np

        def solve(seed: int, x: Tensor) -> Any:
            np.random.seed(max(seed, 0))
            y = pyttb.cp_als(pyttb.tensor(np.asfortranarray(x.numpy())), rank, printitn=0)[0]
            return y.weights, [np.ascontiguousarray(factor) for factor in y.factor_matrices]

        found["pyttb"] = solve
    return found


def thousand(count: int = 1000, sample: int = 50) -> Row:
    """A thousand tensors at once; a peer's loop is timed on fifty of them and its time taken twenty times."""
    row: Row = {}
    x = torch.stack([planted_cp((16,) * 3, 4, noise=NOISE, seed=seed) for seed in range(count)])
    found: dict[str, Any] = {}
    timers = {"ours": clock(lambda: cp_als(x, 4, batch=1), found, "ours")}

    def loop(name: str, solve: Callable[[int, Tensor], Any]) -> Timer:
        each = clock(lambda: [solve(i, x[i]) for i in range(sample)], found, name)
        return lambda: each() * count / sample

    timers |= {name: loop(name, solve) for name, solve in _solvers(4, row).items()}
    samples = take({name: rested(timer) for name, timer in timers.items()}, turns=7, budget=90)
    planted = {
        name: sum(_error(x[i], *one) <= PLANTED for i, one in enumerate(found[name]))
        for name in timers
        if name != "ours"
    }
    rest = (found["ours"].to_dense() - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    facts = {
        "planted": f"{int((rest <= PLANTED).sum())} of {count}", "worst error": float(rest.max()),
        "peers planted": {name: f"{those} of {sample}" for name, those in planted.items()},
    }  # fmt: skip
    asked = [
        *faster(samples, {name: 30.0 for name in timers if name != "ours"}),
        at_most("worst error", facts["worst error"], PLANTED),
    ]
    return row | {"samples": samples, "facts": facts, "asked": asked}


def _grown(n: int, rank: int) -> dict[str, Timer]:
    x = torch.rand((n,) * 3, generator=seeded(), dtype=torch.float64)
    floor = floors(x, rank)["floor, rows first"]
    return {"ours": per_sweep(our_sweeps(x, start((n,) * 3, rank, torch.float64)), 1, 7), "floor": floor}


F64, F32 = torch.float64, torch.float32
_THREE = {10: {"tensorly torch": 4.0, "pyttb": 1.0}, 50: {"tensorly torch": 1.8, "pyttb": 1.0}}
_FOUR = {"tensorly torch": 2.0, "tensorly numpy": 2.0, "pyttb": 2.0}

ROWS: dict[str, Callable[[], Row]] = {
    **{
        f"CP sweep 200^3 {str(dtype)[6:]} rank {rank}": functools.partial(
            sweep, (200,) * 3, dtype, rank, _THREE[rank]
        )
        for dtype in (F64, F32)
        for rank in (10, 50)
    },
    **{f"CP sweep 60^4 float64 rank {r}": functools.partial(sweep, (60,) * 4, F64, r, _FOUR) for r in (10, 50)},
    **{
        f"CP quality {n}^3 rank {rank} {kind}": functools.partial(quality, n, rank, kind)
        for n, rank in ((30, 5), (200, 10))
        for kind in ("centred", "uniform", "correlated")
    },
    "1000 CP problems 16^3 rank 4": thousand,
    "growth of a CP sweep in n, rank 32": lambda: growth((64, 128, 192, 256, 320), lambda n: _grown(n, 32), 3.0),
    "growth of a CP sweep in the rank, 160^3": lambda: growth((16, 32, 64, 128, 256), lambda r: _grown(160, r), 1.0),
}
