"""Times of kronecker_svd, t_svd, masked_als, hadamard_als, block_term and chebyshev_tucker, and how they grow.

No installed peer has these decompositions; the peer is the shortest correct text in plain torch or numpy where there
is one. ``floor_seconds`` is the work that nobody can leave out: one pass of the products that the method is made of.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy
import torch
from benchmarks.inputs import long_range, planted_block_terms, planted_kronecker, planted_tubal, seeded
from torch import Tensor

from polyad.decompose import block_term, chebyshev_tucker, kronecker_svd, masked_als, t_svd


def timed(*calls: Callable[[], Any] | None, least: float = 0.4) -> list[float | None]:
    """The least seconds of each call, tried in turn until about ``least`` seconds each are spent."""
    best = [math.inf] * len(calls)
    spent = 0.0
    while spent < least * len(calls):
        for place, call in enumerate(calls):
            if call is not None:
                clock = time.perf_counter()
                call()
                took = time.perf_counter() - clock
                best[place], spent = min(best[place], took), spent + took
    return [None if call is None else took for call, took in zip(calls, best, strict=True)]


def row(
    work: str, ours: Callable[[], Any], peer: Callable[[], Any] | None, floor: Callable[[], Any], x: Tensor
) -> dict[str, Any]:
    """One line of the table; the error is ours, relative, against x."""
    error = float((ours().to_dense().double() - x).norm() / x.double().norm())
    mine, theirs, least = timed(ours, peer, floor)
    return {
        "work": work, "ours_seconds": mine, "peer": None if peer is None else "torch or numpy, written out",
        "peer_seconds": theirs, "floor_seconds": least, "error": error,
    }  # fmt: skip


def kronecker(side: int, rank: int) -> dict[str, Any]:
    """A (side², side²) matrix of ``rank`` products of side by side, against the full SVD of the rearrangement."""
    x = planted_kronecker(side, rank, noise=1e-3)

    def written_out() -> Tensor:
        blocks = x.reshape(side, side, side, side).permute(0, 2, 1, 3).reshape(side * side, -1)
        u, s, vh = torch.linalg.svd(blocks, full_matrices=False)
        return (u[:, :rank] * s[:rank]) @ vh[:rank]

    thin = torch.randn(side * side, rank, generator=seeded(), dtype=x.dtype)
    return row(
        f"kronecker_svd {side**2}², {rank} terms",
        lambda: kronecker_svd(x, rank, shape_of_first=(side, side)), written_out, lambda: x @ (x @ thin), x,
    )  # fmt: skip


def tubal(n: int, length: int, rank: int, dtype: torch.dtype) -> dict[str, Any]:
    """n by n tubes of ``length``, against a full complex SVD at every frequency."""
    x = planted_tubal(n, length, rank, noise=1e-3).to(dtype)

    def written_out() -> Any:
        u, s, vh = numpy.linalg.svd(numpy.fft.fft(x.numpy()).transpose(2, 0, 1), full_matrices=False)
        return numpy.fft.ifft(((u[..., :rank] * s[:, None, :rank]) @ vh[:, :rank]).transpose(1, 2, 0)).real

    def floor() -> Tensor:
        slices = torch.fft.rfft(x).movedim(-1, 0)
        return slices @ slices.mH

    return row(f"t_svd {n}x{n}x{length} {dtype}, rank {rank}", lambda: t_svd(x, rank), written_out, floor, x)


def masked(n: int, rank: int) -> dict[str, Any]:
    """Ten sweeps over an n by n matrix of which 3 of 10 entries are seen, against a system a row in a loop."""
    g = seeded()
    u, v = (torch.randn(n, rank, generator=g, dtype=torch.float64) for _ in range(2))
    x, seen = u @ v.mT, torch.rand(n, n, generator=g) < 0.3

    def loop() -> Tensor:
        left, right = torch.zeros_like(u), torch.randn(n, rank, generator=seeded(), dtype=torch.float64)
        for _ in range(10):
            for rows, mask, values in ((left, seen, x), (right, seen.mT, x.mT)):
                other = right if rows is left else left
                for i in range(n):
                    a = other[mask[i]]
                    rows[i] = torch.linalg.solve(a.mT @ a + 1e-12 * torch.eye(rank), a.mT @ values[i, mask[i]])
        return left @ right.mT

    pairs, weight = torch.randn(n, rank * (rank + 1) // 2, generator=g, dtype=torch.float64), seen.double()
    return row(
        f"masked_als {n}², rank {rank}, 10 sweeps",
        lambda: masked_als(x, rank, mask=seen, max_iter=10, stop=0.0), loop,
        lambda: [weight @ pairs for _ in range(20)], x,
    )  # fmt: skip


def blocks(n: int, terms: int) -> dict[str, Any]:
    """An n³ tensor of ``terms`` Tucker terms of ranks 2; the floor is one projection of each mode."""
    x = planted_block_terms(n, terms)
    q = torch.randn(n, 2 * terms, generator=seeded(), dtype=x.dtype)
    return row(
        f"block_term {n}³, {terms} terms", lambda: block_term(x, (2, 2, 2), terms=terms), None,
        lambda: x.reshape(n, -1).mT @ (x.reshape(n, -1) @ (x.reshape(n, -1).mT @ q)), x,
    )  # fmt: skip


def chebyshev(particles: int, degree: int, grid: int) -> dict[str, Any]:
    """Potentials of particles at a tolerance of 1e-5, seen on a grid, against Tucker of the values on that grid."""
    from polyad.decompose import hooi

    potential = long_range(particles)
    axis = torch.linspace(-1, 1, grid, dtype=torch.float64)
    box = ((-1.0, 1.0),) * 3
    return row(
        f"chebyshev_tucker of {particles} particles, degree {degree}, grid {grid}³",
        lambda: chebyshev_tucker(potential, box, (degree,) * 3, tol=1e-5, on_grid=True).on_grid([axis] * 3),
        lambda: hooi(potential(axis, axis, axis), tol=1e-5),
        lambda: potential(*[axis[: degree + 1]] * 3), potential(axis, axis, axis),
    )  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """The table."""
    return [
        *(kronecker(side, 4) for side in (16, 24, 32)),
        *(tubal(n, 32, 8, torch.float32) for n in (64, 128, 256)),
        tubal(128, 32, 8, torch.float64),
        *(masked(n, 8) for n in (100, 200, 400)),
        *(blocks(n, 3) for n in (20, 40, 80)),
        *(chebyshev(100, 30, grid) for grid in (48, 96)),
    ]


def growth(table: list[dict[str, Any]]) -> dict[str, float]:
    """Exponents of our time between the first and the last size of each method's doublings."""
    found = {}
    for name, ratio in (("kronecker_svd", 2.0), ("t_svd", 4.0), ("masked_als", 4.0), ("block_term", 4.0)):
        chosen = [r["ours_seconds"] for r in table if r["work"].startswith(name)]
        chosen = chosen[:3]
        found[name] = round(math.log(chosen[-1] / chosen[0]) / math.log(ratio), 2)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    table = rows()
    for line in table:
        print({k: round(v, 5) if isinstance(v, float) and v > 1e-5 else v for k, v in line.items()})
    print("exponents of the side:", growth(table))
