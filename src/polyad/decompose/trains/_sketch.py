"""Factors of a large matrix from a sketch of it, with an error that is measured over all of the matrix."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

Draw = Callable[[int], Tensor]

_FIRST = 32  # vectors that the first attempt draws
_ROOM = 0.8  # share of the tolerance that a basis may use up


def factor_by_sketch(x: Tensor, tol: float, generator: Generator | None) -> tuple[Tensor, Tensor, float] | None:
    """Q (m, k) with orthonormal columns, Qᵀ x (k, n), and the relative Frobenius error of Q Qᵀ x, below ``tol``.

    x is (m, n), of float32 or float64. None where fewer than a quarter of min(m, n) vectors do not suffice, and for
    a ``tol`` near the dtype's epsilon, where the error could not be measured.
    """
    if tol < 50 * torch.finfo(x.dtype).eps:
        return None
    generator = generator or torch.Generator().manual_seed(0)
    q = _basis(lambda n: _columns(x, n, generator), tol, min(x.shape) // 4)
    factors = None if q is None else _project(x, q, tol)
    if factors is not None:
        return factors
    q = _basis(lambda n: (_normal(n, x, generator) @ x).mT, tol, min(x.shape) // 4)
    factors = None if q is None else _project(x.mT, q, tol)
    if factors is None:
        return None
    v, right, missed = factors
    q, r = torch.linalg.qr(right.mT)
    return q, r @ v.mT, missed


def _columns(x: Tensor, n: int, generator: Generator) -> Tensor:
    """n columns of x drawn at random, each at most once."""
    return x[:, torch.randperm(x.shape[1], generator=generator)[:n].to(x.device)]


def _normal(n: int, x: Tensor, generator: Generator) -> Tensor:
    return torch.randn(n, x.shape[0], generator=generator, dtype=x.dtype).to(x.device)


def _basis(draw: Draw, tol: float, most: int) -> Tensor | None:
    """An orthonormal basis that represents as many vectors drawn anew to well within ``tol``, if there is one.

    Half of what is drawn spans the basis, half tests it. The least number of basis vectors is taken that leaves of
    the tests a third of ``tol``, or hardly more than all of them leave, which is what noise leaves.
    """
    count = _FIRST
    while count <= most:
        spanning, tests = draw(2 * count).split(count, dim=1)
        q, r = torch.linalg.qr(spanning)
        q = q @ torch.linalg.svd(r).U
        inside = q.mT @ tests
        beyond = (tests - q @ inside).double().square().sum()
        left = (
            torch.cat((inside.double().square().sum(1), beyond[None])).flip(0).cumsum(0).flip(0)
        )  # without q[:, i:]
        limit = torch.maximum(left[0] * (tol / 3) ** 2, 1.2 * beyond)
        rank = max(1, int((left > limit).sum()))
        if float(limit) <= float(left[0]) * (_ROOM * tol) ** 2 and 4 * rank <= 3 * count and float(left[0]) > 0:
            return q[:, :rank].contiguous()
        count *= 2
    return None


def _project(x: Tensor, q: Tensor, tol: float) -> tuple[Tensor, Tensor, float] | None:
    """Q, Qᵀ x and the relative error that is left, or None where it is too large."""
    b = q.mT @ x
    total = float(torch.linalg.vector_norm(x))
    if x.dtype == torch.float64 and tol >= 1e-6:
        missed = math.sqrt(max(0.0, 1 - (float(torch.linalg.vector_norm(b)) / total) ** 2) + 1e-14)
    else:
        missed = math.sqrt(sum(_squares(x, q, b))) / total
    return (q, b, missed) if missed <= _ROOM * tol + 0.1 * tol else None


def _squares(x: Tensor, q: Tensor, b: Tensor) -> list[float]:
    """Squared norms of x - Q B, some rows at a time so that they stay in the processor's cache."""
    rows = max(1, 2**18 // x.shape[1])
    pairs = zip(x.split(rows), q.split(rows), strict=True)
    return [float(torch.linalg.vector_norm(torch.addmm(part, mine, b, alpha=-1))) ** 2 for part, mine in pairs]
