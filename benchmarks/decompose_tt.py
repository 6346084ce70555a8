"""Tensor trains against torchTT and teneva: decomposition, rounding, cross approximation, a layer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from benchmarks import inputs
from benchmarks.measuring import Row, Timer, at_most, clock, faster, growth, median, peer, take
from torch import Tensor

from polyad.decompose import tt_cross, tt_matrix, tt_svd
from polyad.formats import TensorTrain

TOLERANCE = 1e-4
TENSORS: dict[str, Callable[[], Tensor]] = {
    "8^8 train of rank 12": lambda: inputs.train_to_dense(inputs.planted_train((8,) * 8, 12)),
    "4^12 train of rank 12": lambda: inputs.train_to_dense(inputs.planted_train((4,) * 12, 12)),
    "4^12 smooth, noise 2e-5": lambda: inputs.smooth((4,) * 12, noise=2e-5),
    "8^8 smooth, noise 2e-5": lambda: inputs.smooth((8,) * 8, noise=2e-5),
}


def relative(found: Tensor, x: Tensor) -> float:
    return float((found.double() - x.double()).norm() / x.double().norm())


def decomposition(name: str, dtype: torch.dtype) -> Row:
    """2^24 numbers to 1e-4. The floor is one product of the middle unfolding with as many vectors as its rank, and
    its norm."""
    row: Row = {}
    x = TENSORS[name]().to(dtype)
    found = tt_svd(x, tol=TOLERANCE)
    q = torch.randn(found.rank[x.ndim // 2 - 1], 4096, generator=inputs.seeded(), dtype=dtype)
    kept: dict[str, Any] = {}
    timers = {
        "ours": clock(lambda: tt_svd(x, tol=TOLERANCE)),
        "floor": clock(lambda: (q @ x.reshape(4096, 4096), torch.linalg.vector_norm(x))),
    }
    if torchtt := peer("torchtt", row):
        timers["torchTT"] = clock(lambda: torchtt.TT(x, eps=TOLERANCE), kept, "torchTT")
    samples = take(timers, turns=5, budget=120)
    error = relative(found.to_dense(), x)
    facts = {"error": error, "rank": found.rank}
    if kept:
        theirs = kept["torchTT"]
        facts |= {"torchTT's error": relative(theirs.full(), x), "torchTT's rank": [int(r) for r in theirs.R[1:-1]]}
    asked = [*faster(samples, {"torchTT": 8.0}), at_most("error", error, TOLERANCE)]
    return row | {"samples": samples, "facts": facts, "asked": asked}


def rounding(dtype: torch.dtype) -> Row:
    """Bonds of 64 that are truly 16, ten modes of 20. The floor is the R factor of every core."""
    row: Row = {}
    cores = inputs.inflated_train((20,) * 10, 16, 64)
    true = TensorTrain.from_three_way(inputs.planted_train((20,) * 10, 16), cores[0])
    mine = [core.to(dtype) for core in cores]
    x = TensorTrain.from_three_way(mine, mine[0])
    flat = [core.reshape(-1, core.shape[-1]) for core in mine[:-1]]
    timers = {
        "ours": clock(lambda: x.round(tol=1e-5)),
        "floor": clock(lambda: [torch.linalg.qr(m, mode="r") for m in flat]),
    }
    if torchtt := peer("torchtt", row):
        other = torchtt.TT(mine)
        timers["torchTT"] = clock(lambda: other.round(1e-5))
    samples = take(timers, turns=25)
    found = x.round(tol=1e-5)
    facts = {"error": float((found.to(torch.float64) - true).norm() / true.norm()), "rank": found.rank}
    asked = [*faster(samples, {"torchTT": 1.0}), at_most("ranks other than 16", sum(r != 16 for r in found.rank), 0)]
    return row | {"samples": samples, "facts": facts, "asked": asked}


def cross(name: str) -> Row:
    """32^10 to 1e-6. The floor counts the entries of the fibres at the ranks found, asked once."""
    row: Row = {}
    shape, function = (32,) * 10, inputs.functions(32)[name]
    index = torch.stack([torch.randint(0, n, (20_000,), generator=inputs.seeded(99)) for n in shape], 1)
    truth, seen = function(index), {}
    kept: dict[str, Any] = {}
    timers = {
        "ours": clock(
            lambda: tt_cross(function, shape, tol=1e-6, callback=lambda _, __, values: seen.update(values)),
            kept,
            "ours",
        )
    }
    info: Row = {}
    if teneva := peer("teneva", row):
        asked_for = lambda i: function(torch.as_tensor(i)).numpy()  # noqa: E731

        def theirs() -> Any:
            info.clear()
            first = teneva.rand(list(shape), 2, seed=0)
            return teneva.cross(asked_for, first, m=2e6, e=1e-6, nswp=30, dr_min=1, dr_max=1, info=info, cache={})

        timers["teneva"] = clock(theirs, kept, "teneva")
    samples = take(timers, turns=3, budget=30, least=1)
    found = kept["ours"]
    error = float((found.entries(index) - truth).norm() / truth.norm())
    ranks = (1, *found.round(tol=1e-6).rank, 1)
    floor = sum(r * n * s for r, n, s in zip(ranks, shape, ranks[1:], strict=False))
    facts = {"evaluations": seen["evaluations"], "error": error, "entries of the fibres": floor}
    asked = [at_most("error", error, 1e-6)]
    if info:
        entries = torch.as_tensor(teneva.get_many(kept["teneva"], index.numpy()))
        facts |= {
            "teneva's evaluations": int(info["m"]),
            "teneva's error": float((entries - truth).norm() / truth.norm()),
        }
        asked.append(at_most("evaluations / teneva's", seen["evaluations"] / int(info["m"]), 1.0))
    return row | {"samples": samples, "facts": facts, "asked": asked}


def layer(bond: int, rows: int) -> Row:
    """A (1024, 1024) weight as a matrix train beside the dense product."""
    w = torch.randn(1024, 1024, generator=inputs.seeded())
    found, x = tt_matrix(w, bond), torch.randn(rows, 1024, generator=inputs.seeded(rows))
    samples = take({"ours": clock(lambda: found.linear(x)), "dense": clock(lambda: x @ w.mT)}, turns=51)
    floor = found.flops(rows) / (2 * w.numel() * rows)
    error = relative(found.linear(x), x @ found.to_dense().mT)
    share = median(samples["ours"]) / median(samples["dense"])
    return {
        "samples": samples,
        "facts": {"share of time": share, "of operations": floor, "error": error},
        "asked": [],
    }


def _entries(d: int) -> dict[str, Timer]:
    x = inputs.train_to_dense(inputs.planted_train((8,) * d, 8))
    return {"ours": clock(lambda: tt_svd(x, tol=TOLERANCE))}


def _bond(bond: int) -> dict[str, Timer]:
    cores = inputs.inflated_train((20,) * 10, 8, bond)
    x, flat = TensorTrain.from_three_way(cores, cores[0]), [core.reshape(-1, core.shape[-1]) for core in cores[:-1]]
    floor = clock(lambda: [torch.linalg.qr(m, mode="r") for m in flat])
    return {"ours": clock(lambda: x.round(tol=1e-5)), "floor": floor}


DTYPES = (torch.float64, torch.float32)
ROWS: dict[str, Callable[[], Row]] = {
    **{
        f"TT-SVD {name}, {str(dtype)[6:]}": functools.partial(decomposition, name, dtype)
        for name in TENSORS
        for dtype in DTYPES
    },
    **{f"TT rounding 64 to 16, {str(dtype)[6:]}": functools.partial(rounding, dtype) for dtype in DTYPES},
    **{f"TT-cross 32^10, {name}": functools.partial(cross, name) for name in inputs.functions(32)},
    **{
        f"matrix train 1024^2, bonds {bond}, {rows} rows": functools.partial(layer, bond, rows)
        for bond in (4, 16)
        for rows in (1, 64, 1024)
    },
    "growth of TT-SVD in the entries": lambda: growth(
        tuple(8**d for d in (5, 6, 7, 8)), lambda n: _entries((n.bit_length() - 1) // 3), 1.0
    ),
    "growth of TT rounding in the bond": lambda: growth((32, 64, 128), _bond, 3.0),
}
