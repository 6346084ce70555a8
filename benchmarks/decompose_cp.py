"""CP by alternating least squares: time of a sweep, quality, batches and growth, beside tensorly and pyttb.

``python benchmarks/decompose_cp.py [part …]`` prints rows as JSON lines; the parts are sweep, quality, batch, growth.
Runs where the peers are installed; a peer that is absent is left out. One thread is used throughout.
"""

from __future__ import annotations

import importlib.util
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from inputs import correlated_cp, planted_cp, seeded
from polyad.decompose import cp_als
from polyad.decompose._cp_sweeps import Sweeps

Row = dict[str, Any]
Start = list[Tensor]  # one matrix (I_n, rank) a mode


def seconds(call: Callable[[], Any], repeats: int = 3) -> float:
    """The least wall time of some calls."""
    best = math.inf
    for _ in range(repeats):
        clock = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - clock)
    return best


def floor(x: Tensor, rank: int) -> Callable[[], Any]:
    """The dimension tree's two large products, x with half of its factors and then with the other half."""
    half = x.ndim // 2
    matrix = x.reshape(math.prod(x.shape[:half]), -1)
    first, second = (torch.ones(n, rank, dtype=x.dtype) for n in matrix.shape)
    return lambda: (matrix @ second, first.mT @ matrix)


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


def peer_sweeps(x: Tensor, factors: Start) -> dict[str, Callable[[int], Any]]:
    """The same of every peer that is installed, from the same start."""
    found: dict[str, Callable[[int], Any]] = {}
    rank = factors[0].shape[1]
    if importlib.util.find_spec("tensorly"):
        import tensorly
        from tensorly.decomposition import parafac

        def plain(backend: str, y: Any, init: Any, count: int) -> None:
            with tensorly.backend_context(backend):
                parafac(y, rank, n_iter_max=count, init=(None, [*init]), tol=0)

        arrays = [factor.numpy() for factor in factors]
        found["tensorly torch"] = lambda count: plain("pytorch", x, factors, count)
        found["tensorly numpy"] = lambda count: plain("numpy", x.numpy(), arrays, count)
    if importlib.util.find_spec("pyttb") and x.dtype == torch.float64:  # it knows no other
        import numpy as np
        import pyttb

        y = pyttb.tensor(np.asfortranarray(x.numpy()))
        init = pyttb.ktensor([np.asfortranarray(factor.numpy()) for factor in factors])
        found["pyttb"] = lambda count: pyttb.cp_als(y, rank, stoptol=0, maxiters=count, init=init, printitn=0)
    return found


def per_sweep(run: Callable[[int], Any], few: int = 1, more: int = 5) -> float:
    """Seconds of one sweep, set-up excluded."""
    return max(seconds(lambda: run(more)) - seconds(lambda: run(few)), 0.0) / (more - few)


def sweep_rows() -> Iterator[Row]:
    """One sweep of 200³ and of 60⁴."""
    cases = [((200,) * 3, dtype, rank) for dtype in (torch.float64, torch.float32) for rank in (10, 50)]
    for shape, dtype, rank in [*cases, ((60,) * 4, torch.float64, 10), ((60,) * 4, torch.float64, 50)]:
        x, factors = planted_cp(shape, rank, noise=1e-2).to(dtype), start(shape, rank, dtype)
        row = {
            "work": f"CP-ALS sweep {shape[0]}^{len(shape)} {str(dtype)[6:]} rank {rank}",
            "ours_seconds": per_sweep(our_sweeps(x, factors)), "floor_seconds": seconds(floor(x, rank), 5),
        }  # fmt: skip
        for name, run in peer_sweeps(x, factors).items():
            yield {**row, "peer": name, "peer_seconds": per_sweep(run)}


def quality_rows(seeds: int = 20, peer_seeds: int = 3) -> Iterator[Row]:
    """Share of seeds with the planted fit, and total time of a call, noise 1e-3; peers at their defaults."""
    for n, rank in ((30, 5), (200, 10)):
        for kind in ("centred", "uniform", "correlated"):
            ours, theirs = [], {}
            for seed in range(seeds):
                x = correlated_cp((n,) * 3, rank, kind, noise=1e-3, seed=seed)
                ours.append(_timed(lambda x=x, rank=rank: cp_als(x, rank), x))
                for name, run in _solvers(rank, seed).items() if seed < peer_seeds else ():
                    theirs.setdefault(name, []).append(_timed(lambda x=x, run=run: run(x), x))
            row = {"work": f"CP quality {n}^3 rank {rank} {kind}", **_summary(ours, "ours")}
            yield from ({**row, "peer": name, **_summary(runs, "peer")} for name, runs in theirs.items())


def _summary(runs: list[tuple[float, float]], who: str) -> Row:
    times, errors = zip(*runs, strict=True)
    return {
        f"{who}_seconds": statistics.median(times), f"{who}_worst_seconds": max(times),
        f"{who}_planted": f"{sum(e < 1.05e-3 for e in errors)} of {len(errors)}", f"{who}_worst_error": max(errors),
    }  # fmt: skip


def _timed(run: Callable[[], Any], x: Tensor) -> tuple[float, float]:
    clock = time.perf_counter()
    found = run()
    taken = time.perf_counter() - clock
    weights, factors = (found.weights, found.factors) if hasattr(found, "rank") else found
    factors = [torch.as_tensor(factor) for factor in factors]
    dense = torch.einsum("ar,br,cr,r->abc", *factors, torch.as_tensor(weights))
    return taken, float((dense - x).norm() / x.norm())


def _solvers(rank: int, seed: int) -> dict[str, Callable[[Tensor], Any]]:
    """Whole decompositions by the peers at their defaults, from one random start: weights and factors."""
    found: dict[str, Callable[[Tensor], Any]] = {}
    if importlib.util.find_spec("tensorly"):
        from tensorly.decomposition import parafac

        found["tensorly numpy"] = lambda x: tuple(parafac(x.numpy(), rank, init="random", random_state=seed))
    if importlib.util.find_spec("pyttb"):
        import numpy as np
        import pyttb

        def solve(x: Tensor) -> Any:
            np.random.seed(seed)
            y = pyttb.cp_als(pyttb.tensor(np.asfortranarray(x.numpy())), rank, printitn=0)[0]
            return y.weights, [np.ascontiguousarray(factor) for factor in y.factor_matrices]

        found["pyttb"] = solve
    return found


def batch_rows(count: int = 1000, sample: int = 20) -> list[Row]:
    """A thousand tensors at once; a peer's loop is timed on some of them and multiplied."""
    x = torch.stack([planted_cp((16,) * 3, 4, noise=1e-3, seed=seed) for seed in range(count)])
    ours = seconds(lambda: cp_als(x, 4, batch=1), 2)
    dense = cp_als(x, 4, batch=1).to_dense()
    errors = (dense - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    row = {
        "work": "1,000 CP of 16^3 rank 4", "ours_seconds": ours,
        "ours_planted": f"{int((errors < 1.05e-3).sum())} of {count}", "ours_worst_error": float(errors.max()),
    }  # fmt: skip
    found = []
    for name in _solvers(4, 0):
        runs = [_timed(lambda i=i, name=name: _solvers(4, i)[name](x[i]), x[i]) for i in range(sample)]
        seen = _summary(runs, "peer")
        found.append({**row, "peer": name, **seen, "peer_seconds": count / sample * sum(run[0] for run in runs)})
    return found


def growth_rows() -> list[Row]:
    """Exponents of a sweep's time in the size (theory: 3) and in the rank (theory: 1)."""

    def taken(n: int, rank: int) -> float:
        x = torch.rand((n,) * 3, generator=seeded(), dtype=torch.float64)
        return per_sweep(our_sweeps(x, start((n,) * 3, rank, torch.float64)))

    sizes, ranks = (64, 96, 144, 216), (32, 64, 128)
    by_size, by_rank = [taken(n, 32) for n in sizes], [taken(144, rank) for rank in ranks]
    return [
        {"work": "CP-ALS sweep n^3 rank 32, exponent of n", "ours": _slope(sizes, by_size), "theory": 3.0},
        {"work": "CP-ALS sweep 144^3, exponent of the rank", "ours": _slope(ranks, by_rank), "theory": 1.0},
    ]


def _slope(xs: tuple[int, ...], ys: list[float]) -> float:
    return statistics.linear_regression([math.log(x) for x in xs], [math.log(y) for y in ys]).slope


PARTS = {"sweep": sweep_rows, "quality": quality_rows, "batch": batch_rows, "growth": growth_rows}


def rows() -> list[Row]:
    """Every row of this piece."""
    torch.set_num_threads(1)
    return [row for part in PARTS.values() for row in part()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for part in sys.argv[1:] or PARTS:
        for one in PARTS[part]():
            print(json.dumps(one), flush=True)
