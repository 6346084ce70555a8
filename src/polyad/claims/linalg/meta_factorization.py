"""Seven factorisations from one equation: against their own algorithms, and on decaying spectra. Some seconds.

The matrices are drawn here: of full rank, of rank 20, and with singular values 0.8^i in random bases.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.algorithms import maxvol, meta_factorization
from polyad.claims._data_hash import sha
from polyad.claims.record import Line, Outcome, mean_and_error
from polyad.linalg import Gaussian

MINUTES = 1
SEEDS = range(24)
N, M, RANK, OVER, DECAY = 80, 60, 20, 10, 0.8


def draw_matrices(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A matrix of full rank, one of rank RANK, and one with singular values DECAY^i."""
    g = Generator().manual_seed(seed)
    full, left, right, v = (_normal(*shape, g) for shape in ((N, M), (N, RANK), (RANK, M), (M, M)))
    values = DECAY ** torch.arange(float(M), dtype=torch.float64)
    return full, left @ right, (torch.linalg.qr(full).Q * values) @ torch.linalg.qr(v).Q.mT


def largest_difference(full: Tensor, low: Tensor, g: Generator) -> float:
    """The largest relative difference of six factorisations from their own algorithms."""
    return max(*_orthogonal(full, low), *_chosen(low, g))


def _orthogonal(full: Tensor, low: Tensor) -> list[float]:
    """SVD, QR (both factors) and UTV: the choices that are orthogonal bases."""
    u, s, vh = torch.linalg.svd(full, full_matrices=False)
    svd = meta_factorization(full, vh[:RANK].T, u[:, :RANK])
    q, r = torch.linalg.qr(full)
    qr = meta_factorization(full, torch.eye(M, dtype=torch.float64), q)
    v = torch.linalg.qr(low.T @ torch.linalg.qr(low[:, :RANK]).Q).Q
    u_low = torch.linalg.qr(low @ v).Q
    utv = meta_factorization(low, v, u_low)
    return [
        _difference(svd.product(), (u[:, :RANK] * s[:RANK]) @ vh[:RANK]),
        _difference(qr.left(), q),
        _difference(qr.g, r),
        _difference(u_low @ torch.linalg.inv(utv.m) @ v.T, low),
    ]


def _chosen(low: Tensor, g: Generator) -> list[float]:
    """CUR, generalised Nyström and the pseudoinverse: rows, columns, sketches or the matrix itself."""
    rows, columns = torch.arange(0, 50, 2), torch.arange(5, 35)
    cur = meta_factorization(low, columns, rows, rtol=1e-12).product()
    direct = low[:, columns] @ torch.linalg.pinv(low[rows][:, columns], rtol=1e-12) @ low[rows]
    y, x = _sketch(RANK, M, g), _sketch(RANK + OVER, N, g)
    bases = meta_factorization(low, low.T @ _sketch(RANK, N, g), low @ _sketch(RANK, M, g))
    return [
        _difference(cur, direct),
        _difference(
            meta_factorization(low, y, x).product(), low @ y @ torch.linalg.lstsq(x.T @ low @ y, x.T @ low)[0]
        ),
        _difference(bases.inverse(), torch.linalg.pinv(low, rtol=1e-10)),
    ]


def expected_nystrom() -> float:
    """The bound on the expected error over the best of rank RANK: the least over r of √(1 + RANK / (OVER − 1)) ·
    √(1 + r / (RANK − r − 1)) · tail(r) (Nakatsukasa 2020)."""
    tail = [math.sqrt(sum(DECAY ** (2 * i) for i in range(r, M))) for r in range(RANK + 1)]
    factor = min(math.sqrt(1 + r / (RANK - r - 1)) * tail[r] / tail[RANK] for r in range(RANK - 1))
    return factor * math.sqrt(1 + RANK / (OVER - 1))


def errors_over_best(a: Tensor, g: Generator) -> dict[str, float]:
    """Errors over that of the truncated SVD, of the choices and of their controls."""
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    columns, rows = maxvol(vh[:RANK].T.contiguous())[0], maxvol(u[:, :RANK].contiguous())[0]
    y, x = _sketch(RANK, M, g), _sketch(RANK + OVER, N, g)
    chance_columns, chance_rows = (torch.randperm(n, generator=g)[:RANK] for n in (M, N))
    cut = x[:M].T  # to the rows that y has, where A is left out of the core
    products = {
        "nystrom": meta_factorization(a, y, x, rtol=1e-12).product(),
        "nystrom without A in the core": a @ y @ torch.linalg.pinv(cut @ y) @ (x.T @ a),
        "cur": meta_factorization(a, columns, rows, rtol=1e-12).product(),
        "cur by chance": meta_factorization(a, chance_columns, chance_rows, rtol=1e-12).product(),
        "mixed": meta_factorization(a, columns, x, rtol=1e-12).product(),
        "mixed without A in the core": a[:, columns] @ torch.linalg.pinv(cut[:, columns]) @ (x.T @ a),
        "mixed by chance": meta_factorization(a, chance_columns, x, rtol=1e-12).product(),
    }
    best = float(s[RANK:].norm())
    return {name: float((a - product).norm()) / best for name, product in products.items()}


def claim(callback: Callback | None = None) -> Outcome:
    """The four assertions over seeds that draw the matrices, the sketches and the control's choices."""
    differences, transposed, shares, drawn = [], [], [], []
    for done, seed in enumerate(SEEDS, 1):
        matrices, g = draw_matrices(seed), Generator().manual_seed(1000 + seed)
        drawn += matrices
        differences.append(math.log10(largest_difference(*matrices[:2], g)))
        u, s, vh = torch.linalg.svd(matrices[0], full_matrices=False)
        factors = meta_factorization(matrices[0], vh[:RANK].T, u[:, :RANK])
        wrong = factors.f @ torch.linalg.pinv(factors.m).T @ factors.g  # the core in place of its pseudoinverse
        transposed.append(math.log10(_difference(wrong, (u[:, :RANK] * s[:RANK]) @ vh[:RANK])))
        shares.append(errors_over_best(matrices[2], g))
        if callback is not None:
            callback(done, len(SEEDS), shares[-1])
    return Outcome(
        _lines(differences, transposed, shares, {"matrices drawn here": sha(drawn)}),
        {"log10 of differences": differences, "errors over the truncated SVD's": shares},
    )


def _lines(
    differences: list[float], transposed: list[float], shares: list[dict[str, float]], data: dict[str, str]
) -> list[Line]:
    def mean(name: str, over: str | None = None) -> float:
        return sum(share[name] / (share[over] if over else 1.0) for share in shares) / len(shares)

    expected = expected_nystrom()
    svd = "the truncated SVD of the same rank, the best there is: 1"
    return [
        Line(
            assertion="SVD, QR, UTV, CUR, generalised Nyström and the pseudoinverse come out of one call; log10 of "
            "the largest relative difference from their own algorithms",
            **mean_and_error(differences), relation="<=", bound=-10.0, seeds=len(SEEDS), data=data, tolerance=0.05,
            rival="torch.linalg's svd, qr, lstsq and pinv, which the figure is the difference from",
            control=f"the core in place of its pseudoinverse: {sum(transposed) / len(transposed):.2f}, which fails",
        ),
        Line(
            assertion=f"generalised Nyström with {RANK} and {RANK + OVER} vectors leaves no more than the expected "
            "factor over the truncated SVD, singular values 0.8^i",
            **mean_and_error([share["nystrom"] for share in shares]), relation="<=", bound=expected,
            seeds=len(SEEDS), data=data, rival=svd, tolerance=0.05,
            control=f"A left out of the core: {mean('nystrom without A in the core'):.3g}, which fails",
        ),
        Line(
            assertion=f"CUR from {RANK} columns and rows of maximal volume leaves no more than {RANK + 1} times the "
            "truncated SVD's error, singular values 0.8^i",
            **mean_and_error([share["cur"] for share in shares]), relation="<=", bound=RANK + 1.0,
            seeds=len(SEEDS), data=data, rival=svd, tolerance=0.05,
            control=f"columns and rows by chance: {mean('cur by chance'):.3g}, which fails",
        ),
        Line(
            assertion=f"the mixed choice of {RANK} columns and a sketch of {RANK + OVER} leaves less than "
            "generalised Nyström of the same sizes; ratio of the errors",
            **mean_and_error([share["mixed"] / share["nystrom"] for share in shares]), relation="<=", bound=1.0,
            seeds=len(SEEDS), data=data, tolerance=0.05,
            rival="generalised Nyström with Gaussian sketches of as many columns and rows",
            control=f"A left out of the core: {mean('mixed without A in the core', 'nystrom'):.3g}, which fails; "
            f"columns by chance: {mean('mixed by chance', 'nystrom'):.3g}, where nothing is gained",
        ),
    ]  # fmt: skip


def _normal(rows: int, columns: int, g: Generator) -> Tensor:
    return torch.randn(rows, columns, generator=g, dtype=torch.float64)


def _sketch(rows: int, n: int, g: Generator) -> Tensor:
    return Gaussian.draw(rows, n, generator=g).matrix.T.double()


def _difference(result: Tensor, expected: Tensor) -> float:
    return float((result - expected).norm() / expected.norm())
