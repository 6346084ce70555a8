"""Non-negative CP and CP of sparse tensors against tensorly and pyttb."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np
import torch
from benchmarks.decompose_cp import rested
from benchmarks.inputs import nonnegative_cp_input, scattered, seeded
from benchmarks.measuring import THREADS, Row, Timer, at_least, clock, faster, growth, median, peer, per_sweep, take

from polyad.decompose import nonnegative_cp, sparse_cp_als
from polyad.decompose.alternating.sparse_entries import Entries


def products(n: int, nnz: int, rank: int, row: Row | None = None) -> dict[str, Timer]:
    """One sweep of products over all modes, without the once-only sorting, ours and by gathers and segment sums.

    The latter is no true floor: its (nnz, R) temporaries cost page faults that blocks avoid.
    """
    x = scattered(n, nnz)
    factors = [torch.rand(n, rank, generator=seeded(i), dtype=torch.float64) for i in range(3)]
    started = time.perf_counter()
    entries = Entries(x.indices(), x.values(), (n, n, n), rank)
    order = torch.argsort(x.indices()[0], stable=True)
    second, lengths = x.indices()[1][order], torch.bincount(x.indices()[0], minlength=n)

    def floor() -> None:
        for _ in range(3):
            rows = factors[1].index_select(0, second).mul_(factors[2].index_select(0, second))
            torch.segment_reduce(rows.mul_(x.values()[:, None]), "sum", lengths=lengths, unsafe=True)

    timers = {"ours": clock(lambda: [entries.mttkrp(factors, mode) for mode in range(3)]), "floor": clock(floor)}
    if row is None:
        return timers
    row["facts"] = {"sorting seconds": time.perf_counter() - started}
    if pyttb := peer("pyttb", row):
        theirs = pyttb.sptensor(x.indices().T.numpy().copy(), x.values().numpy()[:, None].copy(), (n, n, n))
        matrices = [factor.numpy() for factor in factors]
        timers["pyttb"] = clock(lambda: [theirs.mttkrp(matrices, mode) for mode in range(3)])
        ours = entries.mttkrp(factors, 1).numpy()
        row["facts"]["difference"] = float(np.abs(ours - theirs.mttkrp(matrices, 1)).max() / np.abs(ours).max())
    return timers


def sparse_products(n: int = 10_000, nnz: int = 1_000_000, rank: int = 10) -> Row:
    row: Row = {}
    samples = take(products(n, nnz, rank, row), turns=7)
    return row | {"samples": samples, "asked": faster(samples, {"pyttb": 2.5})}


def sparse_sweep(n: int = 10_000, nnz: int = 1_000_000, rank: int = 10) -> Row:
    """A whole sweep of ALS, the mean of eight from call to call of the callback; pyttb's comes from two lengths."""
    row: Row = {}
    x = scattered(n, nnz)

    def ours() -> float:
        stamps: list[float] = []
        sparse_cp_als(x, rank, max_iter=9, stop=0, callback=lambda *_: stamps.append(time.perf_counter()))
        return (stamps[-1] - stamps[0]) / (len(stamps) - 1)

    timers: dict[str, Timer] = {"ours": ours}
    if pyttb := peer("pyttb", row):
        theirs = pyttb.sptensor(x.indices().T.numpy().copy(), x.values().numpy()[:, None].copy(), (n, n, n))
        timers["pyttb"] = per_sweep(lambda k: pyttb.cp_als(theirs, rank, maxiters=k, stoptol=0, printitn=0), 1, 3)
    samples = take(timers, turns=5)
    return row | {"samples": samples, "facts": {}, "asked": faster(samples, {"pyttb": 2.5})}


def traced(x: torch.Tensor, rank: int) -> list[tuple[float, float]]:
    """Seconds and least error after each sweep."""
    torch.set_num_threads(THREADS)
    trace: list[tuple[float, float]] = []
    start = time.perf_counter()
    nonnegative_cp(
        x, rank, max_iter=120, stop=0,
        callback=lambda _, __, values: trace.append((time.perf_counter() - start, values["error"])),
    )  # fmt: skip
    return trace


def nonnegative(count: int, n: int = 100, rank: int = 10) -> Row:
    """Our error by the time that tensorly's HALS needs for so many iterations, and when we reach its error.

    A run of ours and one of theirs take turns. "ours" is the time to the error of theirs.
    """
    row: Row = {"facts": {}, "samples": {}, "asked": []}
    x = nonnegative_cp_input(n, rank)
    if not peer("tensorly", row):
        return row
    import tensorly
    from tensorly.decomposition import non_negative_parafac_hals

    kept: dict = {}
    theirs = clock(
        lambda: non_negative_parafac_hals(x.numpy(), rank, n_iter_max=count, tol=0, init="random", random_state=0),
        kept, "found",
    )  # fmt: skip
    traces: list[list[tuple[float, float]]] = []

    def ours() -> float:
        traces.append(traced(x, rank))
        goal = np.linalg.norm(tensorly.cp_to_tensor(kept["found"]) - x.numpy()) / float(x.norm())
        return next((t for t, e in traces[-1] if e <= goal), float("inf"))

    samples = take({"tensorly HALS": rested(theirs), "ours": rested(ours)}, turns=5)
    limit = median(samples["tensorly HALS"])
    error = max(min((e for t, e in trace if t <= limit), default=1.0) for trace in traces[-len(samples["ours"]) :])
    peer_error = float(np.linalg.norm(tensorly.cp_to_tensor(kept["found"]) - x.numpy()) / float(x.norm()))
    row["facts"] = {"our error by then, worst run": error, "theirs": peer_error}
    return row | {
        "samples": samples,
        "asked": [at_least("their error / ours at the same time", peer_error / error, 1)],
    }


ROWS: dict[str, Callable[[], Row]] = {
    "sparse CP products, 10^6 entries": sparse_products,
    "sparse CP sweep, 10^6 entries": sparse_sweep,
    **{
        f"non-negative CP 100^3 rank 10, {count} iterations": functools.partial(nonnegative, count)
        for count in (10, 25, 50)
    },
    "growth of sparse CP products in the entries": lambda: growth(
        (250_000, 500_000, 1_000_000, 2_000_000), lambda nnz: products(10_000, nnz, 10), 1.0
    ),
    "growth of sparse CP products in the rank": lambda: growth(
        (5, 10, 20, 40), lambda rank: products(10_000, 500_000, rank), 1.0
    ),
}
