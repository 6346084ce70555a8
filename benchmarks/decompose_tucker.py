"""Truncated SVD and Tucker decompositions beside torch, pyttb, tensorly and tntorch, in alternation, one thread.

PYTHONPATH=src:benchmarks python benchmarks/decompose_tucker.py [svd] [tucker] [batch] [growth]: JSON lines.
A floor is the matrix products that a method cannot do without. Peers that are not installed are left out.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from inputs import planted_spectrum, planted_tucker, seeded
from polyad.decompose import hooi, st_hosvd
from polyad.linalg import truncated_svd

Call = Callable[[], Any]
Row = dict[str, Any]


def timed(calls: dict[str, Call], turns: int) -> tuple[dict[str, float], dict[str, Any]]:
    """The least seconds of each call over so many turns in alternation, and what each gave."""
    best, found = dict.fromkeys(calls, math.inf), {}
    for _ in range(turns):
        for name, call in calls.items():
            clock = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                found[name] = call()
            best[name] = min(best[name], time.perf_counter() - clock)
    return best, found


def peer(name: str) -> Any:
    """A package, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def svd_rows(n: int = 4096, rank: int = 64, turns: int = 3) -> list[Row]:
    """Six products of x with ``rank`` columns are the floor; svd_lowrank as it comes and with enough iterations."""
    k = torch.arange(1, n + 1, dtype=torch.float64)
    rows: list[Row] = []
    for name, spectrum in {"1/k": 1 / k, "0.9^k": 0.9**k}.items():
        for dtype in (torch.float64, torch.float32):
            x = planted_spectrum(n, spectrum).to(dtype)
            columns = torch.ones(n, rank, dtype=dtype)
            best = float(spectrum[rank:].norm())
            calls: dict[str, Call] = {
                "floor": lambda x=x, columns=columns: [x @ columns for _ in range(6)],
                "ours": lambda x=x: truncated_svd(x, rank),
                "torch.svd_lowrank, 2 iterations": lambda x=x: torch.svd_lowrank(x, rank, niter=2),
                "torch.svd_lowrank, 16 iterations": lambda x=x: torch.svd_lowrank(x, rank, niter=16),
            }
            seconds, found = timed(calls, turns)
            errors = {p: low_rank_error(x, *found[p], transposed=p != "ours") for p in list(calls)[1:]}
            rows += [
                {
                    "work": f"truncated SVD {n}^2 rank {rank}, {name}, {dtype}", "ours_seconds": seconds["ours"],
                    "peer": p, "peer_seconds": seconds[p], "floor_seconds": seconds["floor"],
                    "error": errors["ours"] / best - 1, "peer_error": errors[p] / best - 1,
                }
                for p in list(calls)[2:]
            ]  # fmt: skip
    return rows


def low_rank_error(x: Tensor, u: Tensor, s: Tensor, v: Tensor, *, transposed: bool) -> float:
    """``‖x - u s v‖`` in float64."""
    right = v.mT if transposed else v
    return float((x.double() - (u.double() * s.double()) @ right.double()).norm())


def tucker_rows(n: int = 300, rank: int = 20, turns: int = 2) -> list[Row]:
    """To the floor of noise. The floor in time is two products of x with rank + 8 columns."""
    x, ranks = planted_tucker((n, n, n), (rank,) * 3, noise=1e-3), (rank,) * 3
    columns = torch.ones(n, rank + 8, dtype=x.dtype)
    calls: dict[str, Call] = {
        "floor": lambda: (x.reshape(-1, n) @ columns, columns.mT @ x.reshape(n, -1)),
        "ours": lambda: st_hosvd(x, ranks),
        "ours, hooi": lambda: hooi(x, ranks),
        "ours, tol": lambda: st_hosvd(x, tol=1.05e-3),
        **peers(x, ranks),
    }
    seconds, found = timed(calls, turns)
    return [
        {
            "work": f"Tucker {n}^3 to {rank}^3", "ours_seconds": seconds["ours"], "peer": p,
            "peer_seconds": seconds[p], "floor_seconds": seconds["floor"],
            "error": tucker_error(x, found["ours"]), "peer_error": tucker_error(x, found[p]),
        }
        for p in list(calls)[2:]
    ]  # fmt: skip


def peers(x: Tensor, ranks: tuple[int, ...]) -> dict[str, Call]:
    """The peers' Tucker decompositions of one tensor."""
    calls: dict[str, Call] = {}
    array = x.numpy()
    if (pyttb := peer("pyttb")) is not None:
        calls["pyttb.hosvd"] = lambda: pyttb.hosvd(pyttb.tensor(array), 1e-8, ranks=list(ranks), verbosity=0)
    if (tensorly := peer("tensorly.decomposition")) is not None:
        calls["tensorly.tucker"] = lambda: tensorly.tucker(array, list(ranks))
    if (tntorch := peer("tntorch")) is not None and x.ndim == 3 and x.shape[0] < 100:
        calls["tntorch"] = lambda: tntorch.Tensor(x, ranks_tucker=list(ranks))
    return calls


def tucker_error(x: Tensor, found: Any) -> float:
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


def batch_rows(count: int = 1000, n: int = 16, rank: int = 4, turns: int = 3) -> list[Row]:
    """Many small tensors at once, beside a loop of each peer over a tenth of them, its time taken ten times."""
    x = torch.stack([planted_tucker((n,) * 3, (rank,) * 3, noise=0.1, seed=i) for i in range(count)])
    ranks, some = (rank,) * 3, count // 10
    columns = torch.ones(count, n, rank, dtype=x.dtype)
    calls: dict[str, Call] = {
        "floor": lambda: (x.reshape(count, -1, n) @ columns, columns.mT @ x.reshape(count, n, -1)),
        "ours": lambda: st_hosvd(x, ranks, batch=1),
        "ours, hooi": lambda: hooi(x, ranks, batch=1, stop=1e-4),
    }
    for name in peers(x[0], ranks):
        calls[name] = lambda name=name: [peers(one, ranks)[name]() for one in x[:some]]
    seconds, found = timed(calls, turns)
    return [
        {
            "work": f"{count} Tucker problems {n}^3 to {rank}^3", "ours_seconds": seconds["ours"], "peer": p,
            "peer_seconds": seconds[p] * (1 if p.startswith("ours") else count / some),
            "floor_seconds": seconds["floor"], "error": tucker_error(x, found["ours"]),
            "peer_error": tucker_error(x, found[p]) if p.startswith("ours") else tucker_error(x[0], found[p][0]),
        }
        for p in list(calls)[2:]
    ]  # fmt: skip


def growth_rows(turns: int = 3) -> list[Row]:
    """Exponents of time in the size at fixed rank: 2 is the least for matrices, 3 for tensors of order three."""

    def matrix(n: int) -> Call:
        x = planted_spectrum(n, 1 / torch.arange(1, n + 1, dtype=torch.float64))
        return lambda: truncated_svd(x, 16)

    def tensor(n: int) -> Call:
        x = planted_tucker((n,) * 3, (8,) * 3, noise=1e-3)
        return lambda: st_hosvd(x, (8,) * 3)

    def many(n: int) -> Call:
        x = torch.randn(n, 12, 12, 12, generator=seeded(), dtype=torch.float64)
        return lambda: st_hosvd(x, (3, 3, 3), batch=1)

    rows: list[Row] = []
    for name, make, sizes in (
        ("truncated SVD, rank 16, in n", matrix, (1024, 2048, 4096)),
        ("Tucker, rank 8, in n", tensor, (96, 160, 256)),
        ("Tucker of many, in their number", many, (500, 1000, 2000)),
    ):
        seconds, _ = timed({str(n): make(n) for n in sizes}, turns)
        slope = math.log(seconds[str(sizes[-1])] / seconds[str(sizes[0])]) / math.log(sizes[-1] / sizes[0])
        rows.append({"work": name, "sizes": sizes, "seconds": list(seconds.values()), "exponent": slope})
    return rows


PARTS: dict[str, Callable[[], list[Row]]] = {
    "svd": svd_rows, "tucker": tucker_rows, "batch": batch_rows, "growth": growth_rows,
}  # fmt: skip


def rows(parts: list[str] | None = None) -> list[Row]:
    """All rows, or those of some parts."""
    torch.set_num_threads(1)
    return [row for part in parts or PARTS for row in PARTS[part]()]


if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        for row in rows([part]):
            print(json.dumps(row), flush=True)
