"""The subspace power method against alternating least squares on random symmetric tensors. About a minute."""

from __future__ import annotations

import hashlib
import time

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.claims.record import Result
from polyad.decompose import cp_als, spm
from polyad.decompose.cp.spm import climb
from polyad.formats import SymmetricCP

MINUTES = 1
CASES = ((10, 10), (10, 33), (12, 48), (15, 75))  # size and rank, the last of each up to about d²/3
AGAINST = ((10, 10), (10, 33))  # the cases that cp_als is given too: ranks up to the size, and above it


def planted_tensor(d: int, rank: int, seed: int) -> SymmetricCP:
    """Unit normal directions and weights from 1 to 2, of order 4."""
    generator = Generator().manual_seed(seed)
    factor = torch.randn(d, rank, generator=generator, dtype=torch.float64)
    weights = 1 + torch.rand(rank, generator=generator, dtype=torch.float64)
    return SymmetricCP(factor / factor.norm(dim=0), weights, 4)


def distance(directions: Tensor, factor: Tensor) -> float:
    """The largest distance of a planted direction to the nearest found one, up to sign."""
    signed = torch.cat((directions, -directions), 1)
    return float(torch.cdist(factor.T, signed.T, compute_mode="donot_use_mm_for_euclid_dist").amin(1).max())


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """All terms to 1e-6 without being told the rank; the iteration never descends; the time beside cp_als."""
    digest, details, worst = hashlib.sha256(), {}, 0.0
    for d, rank in CASES:
        truth = planted_tensor(d, rank, 0)
        x = truth.to_dense().contiguous()
        digest.update(x.numpy().tobytes())
        clock = time.perf_counter()
        terms = spm(x)
        taken = time.perf_counter() - clock
        off = distance(terms.factor, truth.factor) if terms.rank == rank else float("inf")
        worst = max(worst, off)
        details[f"d={d}, R={rank}"] = {"rank found": terms.rank, "distance": off, "seconds": taken}
        if (d, rank) in AGAINST:
            clock = time.perf_counter()
            other = cp_als(x, rank, stop=1e-12, restarts=4)
            other_taken = time.perf_counter() - clock
            details[f"cp_als, d={d}, R={rank}"] = {
                "distance": distance(other.factors[0], truth.factor), "seconds": other_taken,
                "times spm's": other_taken / taken,
            }  # fmt: skip
    details["greatest fall of the objective"] = _falls()
    return Result(
        "order 4, d from 10 to 15 and rank up to d²/3: every planted direction is found, the rank untold; largest "
        "distance to it", worst, "<=", 1e-6, {"planted tensors": digest.hexdigest()}, 0, details,
    )  # fmt: skip


def _falls() -> float:
    """The greatest fall of an objective between two steps, over all starts."""
    x = planted_tensor(10, 33, 1).to_dense()
    u, s, _ = torch.linalg.svd(x.reshape(100, 100))
    trace: list[Tensor] = []
    climb(u[:, s > 1e-8 * s[0]], 10, 1e-13, 200, Generator().manual_seed(0), trace)
    whole = torch.stack([values for values in trace if len(values) == len(trace[0])])
    return float((whole[:-1] - whole[1:]).max().clamp(min=0))
