"""The top eigenvector from one pass over random-order rows, against Oja's rule and without heavy rows. A minute."""

from __future__ import annotations

import hashlib

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.algorithms import StreamingEigenvector
from polyad.claims.record import Result

MINUTES = 1
N, D, TRIALS = 6000, 100, 5
RATES = (0.1, 0.3, 1.0, 3.0, 10.0)


def rows(kind: str, gap: float, g: Generator) -> Tensor:
    """Rows with σ₂ = 1 and σ₁² about ``gap``; "light" spreads the top direction over all rows, "heavy" over two."""
    noise = torch.randn(N, D, generator=g, dtype=torch.float64)
    noise /= torch.linalg.matrix_norm(noise, 2)
    top = torch.nn.functional.normalize(torch.randn(D, generator=g, dtype=torch.float64), dim=0)
    if kind == "heavy":
        noise = torch.cat((noise, top.expand(2, D) * (gap / 2) ** 0.5))
    else:
        weights = torch.randn(N, generator=g, dtype=torch.float64)
        noise = noise + torch.outer(weights / weights.norm() * gap**0.5, top)
    return noise[torch.randperm(len(noise), generator=g)]


def oja(a: Tensor, rate: float) -> Tensor:
    """Oja's rule with a fixed rate, from a fixed random start."""
    v = torch.nn.functional.normalize(
        torch.randn(D, generator=Generator().manual_seed(9), dtype=torch.float64), dim=0
    )
    for row in a:
        v = v + rate * row * (row @ v)
        v = v / v.norm()
    return v


def claim(callback: Callback | None = None) -> Result:
    """The correlation is at least 1 − 1/√R at every gap, with light rows and with heavy ones."""
    g = Generator().manual_seed(0)
    digest, margins, most_heavy = hashlib.sha256(), [], 0
    correlations: dict[str, dict[str, float]] = {}
    for kind in ("light", "heavy"):
        for gap in (2.0, 4.0, 16.0):
            sums = {"ours": 0.0, "heavy rows dropped": 0.0, "Oja, best of five fixed rates": 0.0}
            for trial in range(TRIALS):
                a = rows(kind, gap, g)
                digest.update(a.numpy().tobytes())
                top = torch.linalg.eigh(a.T @ a).eigenvectors[:, -1]
                stream = _run(a, None)
                ours, most_heavy = _square(top, stream.vector()), max(most_heavy, len(stream.heavy))
                sums["ours"] += ours / TRIALS
                sums["heavy rows dropped"] += _square(top, _run(a, 0).vector()) / TRIALS
                margins.append(ours - (1 - gap**-0.5))
                if trial == 0:
                    sums["Oja, best of five fixed rates"] = max(_square(top, oja(a, rate)) for rate in RATES)
            correlations[f"{kind}, R = {gap:g}"] = sums
            if callback is not None:
                callback(len(correlations), 6, sums)
    return Result(
        "one pass over rows in random order, at gaps 2, 4 and 16: squared correlation with the top eigenvector, less "
        "1 − 1/√R; least over all trials",
        min(margins), ">=", 0.0, {"matrices drawn here": digest.hexdigest()}, 0,
        {"squared correlation": correlations, "most heavy rows held": most_heavy,
         "numbers kept": "(4 * 4 + heavy) d"},
    )  # fmt: skip


def _run(a: Tensor, heavy: int | None) -> StreamingEigenvector:
    stream = StreamingEigenvector(D, heavy=heavy)
    for part in a.split(50):
        stream.update(part)
    return stream


def _square(u: Tensor, v: Tensor) -> float:
    return float((u @ v).square())
