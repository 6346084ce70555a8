"""The plain lasso on ill-conditioned designs, with supports at random and supports that cancel. A minute.

A check of the paper's premise by simulation: its own algorithm, which finds a preconditioner, is not built.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.algorithms import lasso
from polyad.claims.record import Result

MINUTES = 1
D, K, NOISE, TRIALS = 400, 4, 0.1, 6


def design(kind: str, n: int, g: Generator) -> Tensor:
    """Columns of norm √n: near-duplicates a thousandth apart, or a random walk of which neighbours nearly agree."""
    first = torch.randn(n, D // 2, generator=g, dtype=torch.float64)
    apart = torch.randn(n, D // 2, generator=g, dtype=torch.float64)
    x = torch.stack((first, first + 1e-3 * apart), 2).flatten(1) if kind == "duplicates" else None
    if x is None:
        x = torch.cat((first, apart), 1).cumsum(1)
    return x / x.norm(dim=0) * math.sqrt(n)


def signal(x: Tensor, support: str, g: Generator) -> Tensor:
    """X w of mean square 1, with w of K entries of ±1 at random places, or as neighbours of opposite signs."""
    w = torch.zeros(D, dtype=torch.float64)
    if support == "random":
        w[torch.randperm(D, generator=g)[:K]] = (torch.randint(0, 2, (K,), generator=g) * 2 - 1).double()
    else:
        first = 2 * torch.randperm(D // 2, generator=g)[: K // 2]
        w[first], w[first + 1] = 1.0, -1.0
    product = x @ w
    return product / product.square().mean().sqrt()


def claim(callback: Callback | None = None) -> Result:
    """With N about 4 k log d, supports at random are predicted well and cancelling ones are not."""
    g = Generator().manual_seed(0)
    sha = hashlib.sha256()
    mean_errors: dict[str, dict[str, float]] = {}
    n = round(4 * K * math.log(D))
    for kind in ("duplicates", "random walk"):
        for support in ("random", "cancelling"):
            errors = []
            for _ in range(TRIALS):
                x = design(kind, n, g)
                clean = signal(x, support, g)
                y = clean + NOISE * torch.randn(n, generator=g, dtype=torch.float64)
                sha.update(x.numpy().tobytes() + y.numpy().tobytes())
                w = lasso(x, y, noise=NOISE, max_iter=5000, stop=1e-5)
                errors.append(float((x @ w - clean).square().mean()))
            mean_errors.setdefault(kind, {})[support] = sum(errors) / TRIALS
        if callback is not None:
            callback(len(mean_errors), 2, mean_errors[kind])
    worst = max(errors["random"] for errors in mean_errors.values())
    return Result(
        f"lasso, {D} unknowns, {K} non-zero, {n} samples, signals of mean square 1, noise {NOISE}: prediction "
        "error of supports at random, the worse of two ill-conditioned designs (the paper's algorithm is not built)",
        worst, "<=", 0.1, {"designs drawn here": sha.hexdigest()}, 0,
        {"mean squared prediction error": mean_errors, "error of zero": 1.0,
         "of knowing the support": NOISE**2 * K / n},
    )  # fmt: skip
