"""Seven factorisations from one equation, against their own algorithms. Under a second.

The inputs are drawn here: a matrix of full rank, one of rank 20, and one with a decaying spectrum.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.algorithms import meta_factorization
from polyad.claims.record import Result
from polyad.linalg import Gaussian

MINUTES = 1
N, M, RANK = 80, 60, 20


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """Each classical factorisation is reproduced through one call."""
    g = Generator().manual_seed(0)
    full = torch.randn(N, M, generator=g, dtype=torch.float64)
    low = torch.randn(N, RANK, generator=g, dtype=torch.float64) @ torch.randn(RANK, M, generator=g).double()
    errors = {**_orthogonal(full, low), **_chosen(low, g)}
    decaying = torch.linalg.qr(full).Q * 0.8 ** torch.arange(float(M), dtype=torch.float64)
    tail = float(torch.linalg.svdvals(decaying)[RANK:].norm())
    columns, rows = (
        torch.linalg.qr(x).R.diag().abs().argsort(descending=True)[:RANK] for x in (decaying, decaying.T)
    )
    share = {
        "generalised Nyström, 20 and 30": _error(decaying, _sketch(RANK, M, g), _sketch(30, N, g)) / tail,
        "CUR, 20 and 20": _error(decaying, columns, rows) / tail,
        "mixed: 20 columns and a sketch of 30": _error(decaying, columns, _sketch(30, N, g)) / tail,
    }
    digest = hashlib.sha256(torch.cat((full, low)).numpy().tobytes()).hexdigest()
    return Result(
        "SVD, QR, UTV, CUR, generalised Nyström and the pseudoinverse come out of one call with Y and X chosen; "
        "largest relative difference from their own algorithms",
        max(errors.values()), "<=", 1e-10, {"matrices drawn here": digest}, 0,
        {"difference": errors, "error over that of the best matrix of rank 20, spectrum 0.8^i": share},
    )  # fmt: skip


def _orthogonal(full: Tensor, low: Tensor) -> dict[str, float]:
    """The choices that are orthogonal bases."""
    u, s, vh = torch.linalg.svd(full, full_matrices=False)
    svd = meta_factorization(full, vh[:RANK].T, u[:, :RANK])
    q, r = torch.linalg.qr(full)
    qr = meta_factorization(full, torch.eye(M, dtype=torch.float64), q)
    v = torch.linalg.qr(low.T @ torch.linalg.qr(low[:, :RANK]).Q).Q
    u_low = torch.linalg.qr(low @ v).Q
    utv = meta_factorization(low, v, u_low)
    return {
        "SVD": _difference(svd.product(), (u[:, :RANK] * s[:RANK]) @ vh[:RANK]),
        "QR": max(_difference(qr.left(), q), _difference(qr.g, r)),
        "UTV": _difference(u_low @ torch.linalg.inv(utv.m) @ v.T, low),
    }


def _chosen(low: Tensor, g: Generator) -> dict[str, float]:
    """The choices that are rows, columns, sketches or the matrix itself."""
    rows, columns = torch.arange(0, 50, 2), torch.arange(5, 35)
    cur = meta_factorization(low, columns, rows, rtol=1e-12)
    inverse = torch.linalg.pinv(low, rtol=1e-10)
    bases = meta_factorization(low, low.T @ _sketch(RANK, N, g), low @ _sketch(RANK, M, g))
    return {
        "CUR": _difference(low[:, columns] @ torch.linalg.pinv(low[rows][:, columns], rtol=1e-12) @ low[rows], low)
        + _difference(cur.product(), low),
        "generalised Nyström": _error(low, _sketch(RANK, M, g), _sketch(30, N, g)) / float(low.norm()),
        "pseudoinverse": _difference(bases.inverse(), inverse),
    }


def _sketch(rows: int, n: int, g: Generator) -> Tensor:
    return Gaussian.draw(rows, n, generator=g).matrix.T


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _error(a: Tensor, y: Tensor, x: Tensor) -> float:
    return float((a - meta_factorization(a, y, x, rtol=1e-12).product()).norm())
