"""Non-negative CP and CP of sparse tensors against tensorly and pyttb.

Run with an environment that has the peers: ``OMP_NUM_THREADS=1 python benchmarks/decompose_cpx.py``. Prints one row a
line as JSON. Calls are timed in alternation; a time is the least of its turns.
"""

from __future__ import annotations

import itertools
import json
import time
import warnings

import numpy as np
import torch

from inputs import nonnegative_cp_input, scattered, seeded
from polyad.decompose import nonnegative_cp, sparse_cp_als
from polyad.decompose._entries import Entries


def seconds(*calls, turns=5):
    """The least time of each call, in alternation, with one thread for torch.

    The first run of pyttb's products leaves torch with two threads where OMP_NUM_THREADS asked for one; so the number
    is set again before each call, for all of them.
    """
    least = [float("inf")] * len(calls)
    for _ in range(turns):
        for i, call in enumerate(calls):
            torch.set_num_threads(1)
            start = time.perf_counter()
            call()
            least[i] = min(least[i], time.perf_counter() - start)
    return least


def sparse_sweep(n=10_000, nnz=1_000_000, rank=10, *, peer=True):
    """One sweep of products over all modes, without the once-only sorting, which is given beside it."""
    x = scattered(n, nnz)
    factors = [torch.rand(n, rank, generator=seeded(i), dtype=torch.float64) for i in range(3)]
    start = time.perf_counter()
    entries = Entries(x.indices(), x.values(), (n, n, n), rank)
    row = {
        "work": f"sparse CP sweep, {nnz} entries in {n}^3, rank {rank}",
        "sorting_seconds": time.perf_counter() - start,
    }
    calls = [lambda: [entries.mttkrp(factors, mode) for mode in range(3)]]
    if peer:
        import pyttb

        theirs = pyttb.sptensor(x.indices().T.numpy().copy(), x.values().numpy()[:, None].copy(), (n, n, n))
        matrices = [factor.numpy() for factor in factors]
        calls.append(lambda: [theirs.mttkrp(matrices, mode) for mode in range(3)])
        ours = entries.mttkrp(factors, 1).numpy()
        row["error"] = float(np.abs(ours - theirs.mttkrp(matrices, 1)).max() / np.abs(ours).max())
    order = torch.argsort(x.indices()[0], stable=True)
    second, lengths = x.indices()[1][order], torch.bincount(x.indices()[0], minlength=n)

    def floor():  # no true floor: its (nnz, R) temporaries cost page faults that blocks avoid
        # three times: gather two factors, multiply with them and the values, add up by segments
        for _ in range(3):
            rows = factors[1].index_select(0, second).mul_(factors[2].index_select(0, second))
            torch.segment_reduce(rows.mul_(x.values()[:, None]), "sum", lengths=lengths, unsafe=True)

    times = seconds(*calls, floor, turns=3)
    row |= {"ours_seconds": times[0], "peer": "pyttb" if peer else None}
    return row | {"peer_seconds": times[1] if peer else None, "floor_seconds": times[-1]}


def whole_sweep(n=10_000, nnz=1_000_000, rank=10):
    """A sweep of ALS from call to call of the callback, against pyttb.cp_als, whose sweeps come from two lengths."""
    import pyttb

    x = scattered(n, nnz)
    theirs = pyttb.sptensor(x.indices().T.numpy().copy(), x.values().numpy()[:, None].copy(), (n, n, n))
    torch.set_num_threads(1)
    stamps: list[float] = []
    sparse_cp_als(x, rank, max_iter=8, stop=0, callback=lambda *_: stamps.append(time.perf_counter()))
    ours = min(b - a for a, b in itertools.pairwise(stamps))
    lengths = [
        seconds(lambda k=k: pyttb.cp_als(theirs, rank, maxiters=k, stoptol=0, printitn=0), turns=2) for k in (1, 3)
    ]
    work = f"sparse CP-ALS sweep, whole, {nnz} entries in {n}^3, rank {rank}"
    return {"work": work, "ours_seconds": ours, "peer": "pyttb", "peer_seconds": (lengths[1][0] - lengths[0][0]) / 2}


def traced(x, rank):
    """Seconds and least error after each sweep."""
    torch.set_num_threads(1)
    trace: list[tuple[float, float]] = []
    start = time.perf_counter()

    def note(_sweep, _max_iter, values):
        trace.append((time.perf_counter() - start, values["error"]))

    nonnegative_cp(x, rank, max_iter=120, stop=0, callback=note)
    return trace


def nonnegative(n=100, rank=10, iterations=(10, 25, 50)):
    """Our least error by the time that tensorly's HALS needs for so many iterations, and tensorly's."""
    import tensorly
    from tensorly.decomposition import non_negative_parafac_hals

    x = nonnegative_cp_input(n, rank)
    for count in iterations:

        def theirs(count=count):
            return non_negative_parafac_hals(x.numpy(), rank, n_iter_max=count, tol=0, init="random", random_state=0)

        (limit,) = seconds(theirs, turns=2)
        peer_error = np.linalg.norm(tensorly.cp_to_tensor(theirs()) - x.numpy()) / float(x.norm())
        trace = traced(x, rank)
        ours = min((e for t, e in trace if t <= limit), default=float("nan"))
        reached = next((t for t, e in trace if e <= peer_error), float("nan"))
        yield {
            "work": f"non-negative CP, {n}^3, rank {rank}, to the error of {count} iterations",
            "ours_seconds": reached,
            "peer": "tensorly HALS, numpy",
            "peer_seconds": limit,
            "floor_seconds": None,
            "error": ours,
            "peer_error": float(peer_error),
        }


def each():
    """All rows as they come; the last ones show the growth of a sparse sweep with entries and rank."""
    yield sparse_sweep()
    yield from nonnegative()
    yield whole_sweep()
    for nnz in (125_000, 250_000, 500_000, 2_000_000):
        yield sparse_sweep(nnz=nnz, peer=False)
    for rank in (5, 20, 40):
        yield sparse_sweep(rank=rank, peer=False)


def rows():
    """All rows."""
    return list(each())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for row in each():
        print(json.dumps(row), flush=True)
