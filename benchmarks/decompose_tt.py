"""Tensor trains against their peers: decomposition, rounding, cross approximation, a layer of a matrix train.

``/work/venv-peers/bin/python benchmarks/decompose_tt.py [decomposition|rounding|cross|layer|growth]``, or any
environment with torchtt and teneva; rows of absent peers hold None.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import inputs
from polyad.decompose import tt_cross, tt_matrix, tt_svd
from polyad.formats import TensorTrain

try:
    import torchtt
except ImportError:
    torchtt = None
try:
    import teneva
except ImportError:
    teneva = None

Row = dict[str, Any]


def alternated(*calls: Callable[[], Any] | None, repeats: int = 5) -> list[float | None]:
    """The least seconds of each call, taken in turns so that a busy machine slows all of them alike."""
    least = [math.inf] * len(calls)
    for _ in range(repeats):
        for i, call in enumerate(calls):
            if call is not None:
                start = time.perf_counter()
                call()
                least[i] = min(least[i], time.perf_counter() - start)
    return [None if t == math.inf else t for t in least]


def relative(found: Tensor, x: Tensor) -> float:
    return float((found.double() - x.double()).norm() / x.double().norm())


def decomposition(repeats: int = 2) -> list[Row]:
    """TT-SVD of 2^24 numbers to 1e-4. The floor is one product of the middle unfolding with as many vectors as its
    rank, and its norm."""
    tensors = {
        "8^8, train of rank 12": inputs.train_to_dense(inputs.planted_train((8,) * 8, 12)),
        "4^12, train of rank 12": inputs.train_to_dense(inputs.planted_train((4,) * 12, 12)),
        "4^12, smooth and noise of 2e-5": inputs.smooth((4,) * 12, noise=2e-5),
        "8^8, smooth and noise of 2e-5": inputs.smooth((8,) * 8, noise=2e-5),
    }
    rows = []
    for name, x in tensors.items():
        for dtype in (torch.float64, torch.float32):
            y = x.to(dtype)
            found = tt_svd(y, tol=1e-4)
            q = torch.randn(4096, found.rank[len(y.shape) // 2 - 1], dtype=dtype)
            calls = [
                lambda y=y: tt_svd(y, tol=1e-4),
                (lambda y=y: torchtt.TT(y, eps=1e-4)) if torchtt else None,
                lambda y=y, q=q: (q.mT @ y.reshape(4096, 4096), torch.linalg.vector_norm(y)),
            ]
            ours, peer, floor = alternated(*calls, repeats=repeats)
            theirs = torchtt.TT(y, eps=1e-4) if torchtt else None
            rows.append(
                row(f"TT-SVD, {name}, {dtype}", ours, "torchTT", peer, floor, relative(found.to_dense(), y))
                | {"rank": found.rank, "peer_error": None if theirs is None else relative(theirs.full(), y)}
                | {"peer_rank": None if theirs is None else [int(r) for r in theirs.R[1:-1]]}
            )
    return rows


def rounding(repeats: int = 15) -> list[Row]:
    """Bonds of 64 that are truly 16, ten modes of 20. The floor is the R factor of every core."""
    cores = inputs.inflated_train((20,) * 10, 16, 64)
    true = TensorTrain.from_three_way(inputs.planted_train((20,) * 10, 16), cores[0])
    rows = []
    for dtype in (torch.float64, torch.float32):
        mine = [core.to(dtype) for core in cores]
        x = TensorTrain.from_three_way(mine, mine[0])
        other = torchtt.TT(mine) if torchtt else None
        flat = [core.reshape(-1, core.shape[-1]) for core in mine[:-1]]
        ours, peer, floor = alternated(
            lambda x=x: x.round(tol=1e-5),
            None if other is None else lambda other=other: other.round(1e-5),
            lambda flat=flat: [torch.linalg.qr(m, mode="r") for m in flat],
            repeats=repeats,
        )
        found = x.round(tol=1e-5)
        error = float((found.to(torch.float64) - true).norm() / true.norm())
        rows.append(row(f"TT rounding 64 to 16, {dtype}", ours, "torchTT", peer, floor, error) | {"rank": found.rank})
    return rows


def cross() -> list[Row]:
    """TT-cross of 32^10 to 1e-6. The floor counts the entries of the fibres at the ranks found, asked once."""
    shape, rows = (32,) * 10, []
    index = torch.stack([torch.randint(0, n, (20_000,), generator=inputs.seeded(99)) for n in shape], 1)
    for name, function in inputs.functions(32).items():
        truth, seen = function(index), {}
        start = time.perf_counter()
        found = tt_cross(function, shape, tol=1e-6, callback=lambda _, __, values, seen=seen: seen.update(values))
        ours = time.perf_counter() - start
        peer, theirs = _teneva(function, shape, index) if teneva else (None, {})
        error = float((found.entries(index) - truth).norm() / truth.norm())
        ranks = (1, *found.round(tol=1e-6).rank, 1)
        floor = sum(r * n * s for r, n, s in zip(ranks, shape, ranks[1:], strict=False))
        if theirs:
            theirs["peer_error"] = float((theirs.pop("entries") - truth).norm() / truth.norm())
        counts = {"evaluations": seen["evaluations"], "floor_evaluations": floor}
        rows.append(row(f"TT-cross 32^10, {name}", ours, "teneva", peer, None, error) | counts | theirs)
    return rows


def _teneva(function: Callable[[Tensor], Tensor], shape: tuple[int, ...], index: Tensor) -> tuple[float, Row]:
    info: Row = {}
    start = time.perf_counter()
    first = teneva.rand(list(shape), 2, seed=0)
    asked = lambda i: function(torch.as_tensor(i)).numpy()  # noqa: E731
    found = teneva.cross(asked, first, m=2e6, e=1e-6, nswp=30, dr_min=1, dr_max=1, info=info, cache={})
    seconds = time.perf_counter() - start
    return seconds, {
        "peer_evaluations": int(info["m"]),
        "entries": torch.as_tensor(teneva.get_many(found, index.numpy())),
    }


def layer(repeats: int = 15) -> list[Row]:
    """A (1024, 1024) weight as matrix trains of bonds 4 and 16 against the dense product."""
    w = torch.randn(1024, 1024, generator=inputs.seeded())
    trains, rows = {bond: tt_matrix(w, bond) for bond in (4, 16)}, []
    for bond, n in itertools.product(trains, (1, 64, 1024)):
        found = trains[bond]
        x = torch.randn(n, 1024, generator=inputs.seeded(n))
        ours, dense = alternated(lambda x=x, found=found: found.linear(x), lambda x=x: x @ w.mT, repeats=repeats)
        error = relative(found.linear(x), x @ found.to_dense().mT)
        floor = found.flops(n) / (2 * w.numel() * n) * (dense or 0)
        rows.append(row(f"matrix train 1024 x 1024, bonds {bond}, {n} rows", ours, "dense", dense, floor, error))
    return rows


def growth(repeats: int = 5) -> list[Row]:
    """Exponents of time in the number of entries (TT-SVD of 8^5 … 8^8) and in the bond (rounding 32 … 128)."""
    sizes, times = (5, 6, 7, 8), []
    for d in sizes:
        x = inputs.train_to_dense(inputs.planted_train((8,) * d, 8))
        times.append(alternated(lambda x=x: tt_svd(x, tol=1e-4), repeats=repeats)[0] or math.nan)
    bonds, rounds = (32, 64, 128), []
    for bond in bonds:
        cores = inputs.inflated_train((20,) * 10, 8, bond)
        x = TensorTrain.from_three_way(cores, cores[0])
        rounds.append(alternated(lambda x=x: x.round(tol=1e-5), repeats=repeats)[0] or math.nan)
    return [
        {"work": "TT-SVD, entries", "exponent": slope([8**d for d in sizes], times), "seconds": times},
        {"work": "TT rounding, bond", "exponent": slope(list(bonds), rounds), "seconds": rounds},
    ]


def slope(sizes: list[int], seconds: list[float]) -> float:
    """The exponent of the last doubling, where overheads weigh least."""
    return math.log(seconds[-1] / seconds[-2]) / math.log(sizes[-1] / sizes[-2])


def row(work: str, ours: float | None, peer: str, theirs: float | None, floor: float | None, error: float) -> Row:
    return {
        "work": work,
        "ours_seconds": ours,
        "peer": peer,
        "peer_seconds": theirs,
        "floor_seconds": floor,
        "error": error,
    }


def rows() -> list[Row]:
    """Every row, in some minutes."""
    torch.set_num_threads(1)
    return [*decomposition(), *rounding(), *cross(), *layer(), *growth()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    parts = {part.__name__: part for part in (decomposition, rounding, cross, layer, growth)}
    for chosen in sys.argv[1:] or parts:
        for line in parts[chosen]():
            print(json.dumps(line), flush=True)
