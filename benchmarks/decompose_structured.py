"""Structured matrices against dense ones: how long ``linear`` takes from n = 256 to 4096, and the nearest of a kind.

The peer of ``linear`` is torch's dense product, which multiplies with what the format stands for; the floor is what
cannot be saved of the format's own work: its transforms alone, or the two batched products on operands that lie as
they should. Prints one line a row and the growth exponents between the least and the greatest size.

python -m benchmarks.decompose_structured [--rows 64] [--sizes 256 512 1024 2048 4096], about a minute on one core.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.inputs import planted_matrix, rows_of, seeded
from torch import Tensor
from torch.nn import functional as F

from polyad.decompose import (
    low_displacement,
    nearest_block_tensor_train,
    nearest_circulant,
    nearest_monarch,
    nearest_toeplitz,
)  # fmt: skip
from polyad.formats import (
    BlockTensorTrain,
    Circulant,
    Format,
    Householder,
    LowDisplacement,
    Monarch,
    Toeplitz,
)  # fmt: skip

SIZES = (256, 512, 1024, 2048, 4096)
REFLECTIONS = 16


def least(calls: dict[str, Callable[[], Any]], turns: int = 7) -> dict[str, float]:
    """The least time of each call in seconds, taken in turns so that a busy machine is busy for all."""
    found = dict.fromkeys(calls, math.inf)
    for turn in range(turns + 1):
        for name, call in calls.items():
            clock = time.perf_counter()
            call()
            if turn:
                found[name] = min(found[name], time.perf_counter() - clock)
    return found


def formats(n: int) -> dict[str, Format]:
    """One of each kind, (n, n)."""
    g = seeded(1)
    return {
        "Monarch": Monarch.random((n, n), generator=g),
        "BlockTensorTrain, rank 2": BlockTensorTrain.random((n, n), generator=g),
        "Circulant": Circulant.random((n, n), generator=g),
        "Circulant, blocks of 64": Circulant(torch.randn(n // 64, n // 64, 64, generator=g)),
        "Toeplitz": Toeplitz.random((n, n), generator=g),
        "LowDisplacement, rank 2": LowDisplacement.random((n, n), generator=g),
        f"Householder, {REFLECTIONS} reflections": Householder(torch.randn(n, REFLECTIONS, generator=g), (n, n)),
    }


def floor(name: str, n: int, x: Tensor) -> Callable[[], Any]:
    """The format's own work at its barest."""
    if name.startswith(("Monarch", "Block")):
        k, r = math.isqrt(n), 1 if name.startswith("Monarch") else 2
        k = next(d for d in range(k, 0, -1) if n % d == 0)
        a, b = torch.randn(k, len(x), n // k), torch.randn(k, n // k, r * k)
        c, d = torch.randn(k, len(x), r * k), torch.randn(k, r * k, n // k)
        return lambda: (a @ b, c @ d)
    if name.startswith("Householder"):
        v = torch.randn(n, REFLECTIONS)
        return lambda: (x @ v) @ v.mT
    if "blocks" in name:
        y = x.reshape(len(x), -1, 64)
        return lambda: torch.fft.irfft(torch.fft.rfft(y), n=64)
    length = n if name == "Circulant" else 2 * n
    y = x.repeat(1, length // n).repeat(3 if name.startswith("Low") else 1, 1)
    return lambda: torch.fft.irfft(torch.fft.rfft(y), n=length)


def linear_rows(count: int, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """``linear`` of each kind on ``count`` rows."""
    found = []
    for n in sizes:
        x, dense = rows_of(count, n), torch.randn(n, n, generator=seeded(2))
        made = formats(n)
        calls: dict[str, Callable[[], Any]] = {"dense": lambda x=x, dense=dense: F.linear(x, dense)}
        calls |= {name: lambda x=x, format=format: format.linear(x) for name, format in made.items()}
        calls |= {f"{name}, floor": floor(name, n, x) for name in made}
        taken = least(calls)
        for name, format in made.items():
            exact = x[:4].double() @ format.to(torch.float64).to_dense().mT
            found.append({
                "work": f"linear of {name}, n = {n}, {count} rows", "kind": name, "n": n,
                "ours_seconds": taken[name], "peer": "torch, dense", "peer_seconds": taken["dense"],
                "floor_seconds": taken[f"{name}, floor"], "flops": format.flops(count),
                "dense_flops": 2 * count * n * n,
                "error": float((format.linear(x[:4]).double() - exact).norm() / exact.norm()),
            })  # fmt: skip
    return found


def nearest_rows(n: int = 512) -> list[dict[str, Any]]:
    """The nearest of each kind to a planted matrix with noise of a tenth of its norm; the floor reads the matrix."""
    calls: dict[str, tuple[type, Callable[[Tensor], Format]]] = {
        "nearest_monarch": (Monarch, nearest_monarch),
        "nearest_block_tensor_train": (BlockTensorTrain, lambda x: nearest_block_tensor_train(x, 2)),
        "nearest_circulant": (Circulant, nearest_circulant),
        "nearest_toeplitz": (Toeplitz, nearest_toeplitz),
        "low_displacement": (LowDisplacement, lambda x: low_displacement(x, 2)),
    }
    found = []
    for name, (kind, call) in calls.items():
        x = planted_matrix(kind, n, noise=0.1)
        taken = least({"ours": lambda x=x, call=call: call(x), "floor": lambda x=x: x + x}, turns=3)
        found.append({
            "work": f"{name}, n = {n}", "ours_seconds": taken["ours"], "peer": None, "peer_seconds": None,
            "floor_seconds": taken["floor"], "error": float((call(x).to_dense() - x).norm() / x.norm()),
        })  # fmt: skip
    return found


def rows(count: int = 64, sizes: tuple[int, ...] = SIZES) -> list[dict[str, Any]]:
    """All rows of this piece."""
    return linear_rows(count, sizes) + nearest_rows()


def exponents(found: list[dict[str, Any]]) -> dict[str, float]:
    """The exponent of n with which the time of each kind grows between its least and greatest size."""
    grown = {}
    for kind in dict.fromkeys(row["kind"] for row in found if "kind" in row):
        own = [row for row in found if row.get("kind") == kind]
        few, many = min(own, key=lambda row: row["n"]), max(own, key=lambda row: row["n"])
        if many["n"] > few["n"]:
            span = math.log(many["n"] / few["n"])
            grown[kind] = math.log(many["ours_seconds"] / few["ours_seconds"]) / span
            grown["dense"] = math.log(many["peer_seconds"] / few["peer_seconds"]) / span
    return grown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = rows(asked.rows, tuple(asked.sizes))
    for row in found:
        peer = f"{1e6 * row['peer_seconds']:8.0f} µs dense" if row["peer_seconds"] else " " * 17
        own = f"{1e6 * row['ours_seconds']:8.0f} µs, {peer}, {1e6 * row['floor_seconds']:8.0f} µs floor"
        print(f"{row['work']:58s} {own}, error {row['error']:.1e}")
    print({kind: round(power, 2) for kind, power in exponents(found).items()})


if __name__ == "__main__":
    main()
