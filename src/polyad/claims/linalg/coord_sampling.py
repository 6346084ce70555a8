"""Products of sparse matrices from sketches of equal size: sampled rows against linear sketches. Some ten seconds."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.algorithms import coordinated_sampling
from polyad.claims.record import Result
from polyad.linalg import Gaussian, count_sketch

MINUTES = 1
N, D, TRIALS, BUDGET = 4000, 200, 20, 8_000


def sparse(count: int, nonzeros: int, overlap: Tensor, g: Generator) -> Tensor:
    """(N, count) with ``nonzeros`` normal entries in each row that ``overlap`` marks, of uneven sizes."""
    place = torch.rand(N, count, generator=g).argsort(1)[:, :nonzeros]
    values = torch.randn(N, nonzeros, generator=g, dtype=torch.float64)
    scale = (torch.rand(N, 1, generator=g) * 3).exp().double() * overlap.unsqueeze(1)
    return torch.zeros(N, count, dtype=torch.float64).scatter(1, place, values * scale)


def claim(callback: Callback | None = None) -> Result:
    """At equal numbers stored, coordinated sampling beats linear sketches of sparse matrices."""
    g = Generator().manual_seed(0)
    errors: dict[int, dict[str, float]] = {}
    shared = torch.rand(N, generator=g) < 0.5
    digest = hashlib.sha256()
    for i, s in enumerate((2, 5, 20, 100, 200)):
        a = sparse(D, s, shared | (torch.rand(N, generator=g) < 0.3), g)
        b = sparse(D, s, shared | (torch.rand(N, generator=g) < 0.3), g)
        digest.update(a.numpy().tobytes() + b.numpy().tobytes())
        errors[s] = _errors(a, b, s)
        if callback is not None:
            callback(i + 1, 5, errors[s])
    gain = {s: min(e["gaussian"], e["count_sketch"]) / e["priority"] for s, e in errors.items()}
    a, b = sparse(D, 5, shared, g), sparse(D, 5, shared, g)
    return Result(
        "AᵀB of matrices with 5 non-zeros in each row of 200, from sketches of 8000 numbers each (indices counted): "
        "error of the better linear sketch over that of coordinated priority sampling",
        gain[5], ">=", 2.0, {"sparse matrices drawn here": digest.hexdigest()}, 0,
        {"error / (‖A‖‖B‖) by non-zeros a row": errors, "gain by non-zeros a row": gain,
         "bias of 300 seeds in standard errors": _bias(a, b)},
    )  # fmt: skip


def _errors(a: Tensor, b: Tensor, s: int) -> dict[str, float]:
    """Root mean square of ‖AᵀB − estimate‖ / (‖A‖‖B‖); a sampled row costs values, places, key and chance."""
    exact, size = a.T @ b, float(a.norm() * b.norm())
    stored = min(2 * s, D) + 2
    squares: dict[str, list[float]] = {"priority": [], "threshold": [], "gaussian": [], "count_sketch": []}
    for seed in range(TRIALS):
        for rule in ("priority", "threshold"):
            left, right = _pair(a, b, BUDGET // stored, rule, seed)
            squares[rule].append(float((left.product(right) - exact).square().sum()))
        for name, draw in (("gaussian", Gaussian.draw), ("count_sketch", count_sketch)):
            sketch = draw(BUDGET // D, N, generator=Generator().manual_seed(seed))
            squares[name].append(float((sketch.apply(a).T @ sketch.apply(b) - exact).square().sum()))
    return {name: (sum(v) / len(v)) ** 0.5 / size for name, v in squares.items()}


def _pair(a: Tensor, b: Tensor, rows: int, rule: str, seed: int) -> Any:
    g = Generator().manual_seed(seed)
    return coordinated_sampling(a, rows, rule=rule, generator=g), coordinated_sampling(
        b, rows, rule=rule, generator=g
    )


def _bias(a: Tensor, b: Tensor) -> float:
    """The mean estimate's distance from AᵀB over what chance alone leaves; about 1 where there is no bias."""
    estimates = []
    for seed in range(300):
        left, right = _pair(a, b, 300, "priority", seed)
        estimates.append(left.product(right))
    stack = torch.stack(estimates)
    alone = stack.var(0).sum().sqrt() / len(estimates) ** 0.5
    return float((stack.mean(0) - a.T @ b).norm() / alone)
