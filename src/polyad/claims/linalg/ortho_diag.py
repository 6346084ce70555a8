"""The rate of random pivoting for Jacobi and Gram-Schmidt, and the accuracy of Jacobi. Some seconds."""

from __future__ import annotations

import hashlib
import itertools

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.algorithms import coupling, random_pivoting
from polyad.algorithms.random_pivoting import pivot
from polyad.claims.record import Result

MINUTES = 1
SIZES = (4, 8, 12)


def claim(callback: Callback | None = None) -> Result:
    """For both rules one random step shrinks the coupling by 1 − 2 / (m (m − 1)) or more, in expectation."""
    g = Generator().manual_seed(0)
    digest = hashlib.sha256()
    worst: dict[str, dict[int, float]] = {"jacobi": {}, "gram_schmidt": {}}
    for i, m in enumerate(SIZES):
        x = torch.randn(30, m, m, generator=g, dtype=torch.float64)
        x[20:] *= 10.0 ** (-4 * torch.rand(10, m, 1, generator=g, dtype=torch.float64))
        digest.update(x.numpy().tobytes())
        for rule in worst:
            worst[rule][m] = _excess(x, rule)
        if callback is not None:
            callback(i + 1, len(SIZES), {rule: worst[rule][m] for rule in worst})
    return Result(
        "the expected coupling after one uniformly random pair (the mean over all pairs) is at most 1−2/(m(m−1)) of "
        "the one before, for Jacobi and Gram-Schmidt; largest excess over 90 matrices, relative",
        max(max(v.values()) for v in worst.values()), "<=", 1e-6, {"matrices drawn here": digest.hexdigest()}, 0,
        {"excess by size": worst, "relative errors of singular values from 1 to 1e-8 in float32": _accuracy(g)},
    )  # fmt: skip


def _excess(x: Tensor, rule: str) -> float:
    m = x.shape[1]
    pairs = list(itertools.combinations(range(m), 2))
    after = torch.zeros(len(x), dtype=torch.float64)
    for i, j in pairs:
        q, t = x.clone(), torch.eye(m, dtype=torch.float64).expand(len(x), m, m).clone()
        pivot(q, t, torch.tensor([i]), torch.tensor([j]), rule)
        after += coupling(q @ q.mT) / len(pairs)
    return float((after / coupling(x @ x.mT) - (1 - 2 / (m * (m - 1)))).max())


def _accuracy(g: Generator) -> dict[str, float]:
    """The largest relative error of a singular value of badly scaled columns, against float64."""
    x = torch.randn(20, 30, 8, generator=g) * 10.0 ** (-8 * torch.arange(8.0).flip(0) / 7)
    exact = torch.linalg.svdvals(x.double())
    pivoted = random_pivoting(x)
    u, values, _ = pivoted.svd()
    lapack = torch.linalg.svdvals(x).double()
    return {
        "random pivoting": float(((values.double() - exact).abs() / exact).max()),
        "LAPACK": float(((lapack - exact).abs() / exact).max()),
        "orthogonality of U": float((u.mT @ u - torch.eye(8)).abs().max()),
    }
