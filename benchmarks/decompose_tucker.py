"""Truncated SVD and Tucker decompositions beside torch, pyttb, tensorly and tntorch."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.inputs import planted_spectrum, planted_tucker, seeded
from benchmarks.measuring import Row, Timer, at_most, clock, faster, growth, peer, take, within
from torch import Tensor

from polyad.decompose import hooi, st_hosvd
from polyad.linalg import truncated_svd

Call = Callable[[], Any]
NOISE = 1e-3


def svd(decay: str, dtype: torch.dtype, n: int = 4096, rank: int = 64) -> Row:
    """Six products of x with ``rank`` vectors, three from either side, are the floor.

    Iterations of torch.svd_lowrank are doubled until its error comes within a tenth of a percent of the least there
    is, or of ours if that is more; that call is the one asked about, its default of two stands beside.
    """
    k = torch.arange(1, n + 1, dtype=torch.float64)
    spectrum = 1 / k if decay == "1/k" else 0.9**k
    x = planted_spectrum(n, spectrum).to(dtype)
    best, rows = float(spectrum[rank:].norm()), torch.ones(rank, n, dtype=dtype)
    ours = _low_rank_error(x, *truncated_svd(x, rank))
    iterations, reached = 1, float("inf")
    while reached > 1.001 * max(ours, best) and iterations < 64:
        iterations *= 2
        u, s, v = torch.svd_lowrank(x, rank, niter=iterations)
        reached = _low_rank_error(x, u, s, v.mT)
    same = f"torch.svd_lowrank, {iterations} iterations"
    samples = take({
        "ours": clock(lambda: truncated_svd(x, rank)),
        "floor": clock(lambda: [(rows @ x.mT, rows @ x) for _ in range(3)]),
        "torch.svd_lowrank, 2 iterations": clock(lambda: torch.svd_lowrank(x, rank, niter=2)),
        same: clock(lambda: torch.svd_lowrank(x, rank, niter=iterations)),
    }, turns=7)  # fmt: skip
    bars = [within(samples, "floor", 3.0)] if dtype == torch.float64 else []
    facts = {"our excess over the least error": ours / best - 1, "svd_lowrank's": reached / best - 1}
    return {"samples": samples, "facts": facts, "asked": bars + faster(samples, {same: 1.0})}


def _low_rank_error(x: Tensor, u: Tensor, s: Tensor, vh: Tensor) -> float:
    return float((x.double() - (u.double() * s.double()) @ vh.double()).norm())


def tucker(by: str, n: int = 300, rank: int = 20) -> Row:
    """To the floor of noise, by ranks or by tolerance. The floor is two products of x with rank + 8 columns.

    tensorly.tucker iterates (HOOI, at most a hundred times); its first iteration alone stands beside, and our hooi.
    """
    row: Row = {}
    x, ranks = planted_tucker((n, n, n), (rank,) * 3, noise=NOISE), (rank,) * 3
    columns = torch.ones(rank + 8, n, dtype=x.dtype)
    kept: dict[str, Any] = {}
    calls: dict[str, Call] = {
        "ours": (lambda: st_hosvd(x, ranks)) if by == "ranks" else lambda: st_hosvd(x, tol=1.05 * NOISE)
    }
    if by == "ranks":
        calls |= {"ours, hooi": lambda: hooi(x, ranks), **peers(x, ranks, row)}
    elif pyttb := peer("pyttb", row):
        y = pyttb.tensor(x.numpy())
        calls["pyttb"] = lambda: pyttb.hosvd(y, 1.05 * NOISE, verbosity=0)
    timers = {name: clock(call, kept, name) for name, call in calls.items()}
    timers["floor"] = clock(lambda: (columns @ x.reshape(-1, n).mT, columns @ x.reshape(n, -1)))
    samples = take(timers, turns=7, budget=120, least=1)
    errors = {name: _tucker_error(x, kept[name]) for name in calls}
    asked = [
        *faster(samples, {"pyttb": 2.5, "tensorly": 10.0}),
        at_most("error / noise", errors["ours"] / NOISE, 1.05),
    ]
    return row | {"samples": samples, "facts": {"errors": errors}, "asked": asked}


def peers(x: Tensor, ranks: tuple[int, ...], row: Row) -> dict[str, Call]:
    """The peers' Tucker decompositions of one tensor, which each of them holds in its own class already."""
    calls: dict[str, Call] = {}
    array = x.numpy()
    if pyttb := peer("pyttb", row):
        y = pyttb.tensor(array)
        calls["pyttb"] = lambda: pyttb.hosvd(y, 1e-8, ranks=list(ranks), verbosity=0)
    if tensorly := peer("tensorly.decomposition", row):
        calls["tensorly"] = lambda: tensorly.tucker(array, list(ranks))
        calls["tensorly, one iteration"] = lambda: tensorly.tucker(array, list(ranks), n_iter_max=1)
    if x.shape[0] < 100 and (tntorch := peer("tntorch", row)):
        calls["tntorch"] = lambda: tntorch.Tensor(x, ranks_tucker=list(ranks))
    return calls


def _tucker_error(x: Tensor, found: Any) -> float:
    """The relative Frobenius error of what any of the packages gives."""
    if hasattr(found, "to_dense"):
        whole = found.to_dense()
    elif hasattr(found, "full"):
        whole = torch.as_tensor(found.full().data)
    elif hasattr(found, "torch"):
        whole = found.torch()
    else:
        whole = torch.as_tensor(importlib.import_module("tensorly").tucker_to_tensor(found))
    return float((whole - x).norm() / x.norm())


def thousand(count: int = 1000, n: int = 16, rank: int = 4) -> Row:
    """Many small tensors at once, beside a loop of each peer over a tenth of them, its time taken ten times."""
    row: Row = {}
    x = torch.stack([planted_tucker((n,) * 3, (rank,) * 3, noise=0.1, seed=i) for i in range(count)])
    ranks, some = (rank,) * 3, count // 10
    columns = torch.ones(count, n, rank, dtype=x.dtype)
    kept: dict[str, Any] = {}
    timers: dict[str, Timer] = {
        "ours": clock(lambda: st_hosvd(x, ranks, batch=1), kept, "ours"),
        "ours, hooi": clock(lambda: hooi(x, ranks, batch=1, stop=1e-4), kept, "ours, hooi"),
        "floor": clock(lambda: (x.reshape(count, -1, n) @ columns, columns.mT @ x.reshape(count, n, -1))),
    }
    ready = [peers(one, ranks, row if i == 0 else {}) for i, one in enumerate(x[:some])]

    def loop(name: str) -> Timer:
        each = clock(lambda: [one[name]() for one in ready], kept, name)
        return lambda: each() * count / some

    names = list(ready[0])
    samples = take(timers | {name: loop(name) for name in names}, turns=15, budget=90)
    errors = {name: _tucker_error(x, kept[name]) for name in ("ours", "ours, hooi")}
    errors |= {
        name: sum(_tucker_error(one, found) ** 2 for one, found in zip(x, kept[name], strict=False)) ** 0.5
        / some**0.5
        for name in names
    }
    asked = faster(samples, {name: 30.0 for name in names if "iteration" not in name})
    return row | {"samples": samples, "facts": {"errors": errors}, "asked": asked}


def _matrix(n: int) -> dict[str, Timer]:
    x = planted_spectrum(n, 1 / torch.arange(1, n + 1, dtype=torch.float64))
    rows = torch.ones(16, n, dtype=x.dtype)
    floor = clock(lambda: [(rows @ x.mT, rows @ x) for _ in range(3)])
    return {"ours": clock(lambda: truncated_svd(x, 16)), "floor": floor}


def _tensor(n: int, rank: int = 8) -> dict[str, Timer]:
    x, columns = planted_tucker((n,) * 3, (rank,) * 3, noise=NOISE), torch.ones(rank + 8, n, dtype=torch.float64)
    floor = clock(lambda: (columns @ x.reshape(-1, n).mT, columns @ x.reshape(n, -1)))
    return {"ours": clock(lambda: st_hosvd(x, (rank,) * 3)), "floor": floor}


def _many(count: int) -> dict[str, Timer]:
    x = torch.randn(count, 12, 12, 12, generator=seeded(), dtype=torch.float64)
    return {"ours": clock(lambda: st_hosvd(x, (3, 3, 3), batch=1))}


ROWS: dict[str, Callable[[], Row]] = {
    **{
        f"truncated SVD 4096^2 rank 64, {decay}, {str(dtype)[6:]}": functools.partial(svd, decay, dtype)
        for dtype in (torch.float64, torch.float32)
        for decay in ("1/k", "0.9^k")
    },
    **{f"Tucker 300^3 to 20^3 by {by}": functools.partial(tucker, by) for by in ("ranks", "tolerance")},
    "1000 Tucker problems 16^3 to 4^3": thousand,
    "growth of the truncated SVD in n, rank 16": lambda: growth((1024, 2048, 4096), _matrix, 2.0),
    "growth of Tucker in n, rank 8": lambda: growth((128, 192, 256, 320), _tensor, 3.0),
    "growth of Tucker in the rank, 256^3": lambda: growth((8, 16, 32), lambda rank: _tensor(256, rank), 1.0),
    "growth of Tucker in the number of tensors": lambda: growth((500, 1000, 2000, 4000), _many, 1.0),
}
