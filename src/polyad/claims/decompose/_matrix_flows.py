"""The equation Y' = A Y + Y Bᵀ of matrices of low rank, its exact solution, and three integrators of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from polyad.decompose import ttn_bug
from polyad.formats import TreeNetwork

SIZE, RANK = 24, 12


def matrix_problem(seed: int, least: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A and B skew of norm 1, and U, S, V of a start with singular values from 1 down to ``least``, RANK of them."""
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64) for _ in range(4)]
    a, b = ((m - m.mT) / torch.linalg.matrix_norm(m - m.mT, 2) for m in draws[:2])
    u, v = (torch.linalg.qr(m).Q[:, :RANK] for m in draws[2:])
    return a, b, u, torch.diag(least ** (torch.arange(RANK, dtype=torch.float64) / (RANK - 1))), v


def runge_kutta(y: tuple[Tensor, ...], h: float, rate: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """One classical step of order four."""
    k1 = rate(*y)
    k2 = rate(*(p + h / 2 * k for p, k in zip(y, k1, strict=True)))
    k3 = rate(*(p + h / 2 * k for p, k in zip(y, k2, strict=True)))
    k4 = rate(*(p + h * k for p, k in zip(y, k3, strict=True)))
    return tuple(p + h / 6 * (a + 2 * b + 2 * c + d) for p, a, b, c, d in zip(y, k1, k2, k3, k4, strict=True))


def project_factors(seed: int, least: float, steps: int) -> Tensor:
    """Dynamical low-rank approximation without basis updates: the equations of U, S and V, with S inverted."""
    a, b, *y = matrix_problem(seed, least)

    def rate(u: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        f = a @ u @ s @ v.mT + u @ s @ v.mT @ b.mT
        left, right = f @ v, f.mT @ u
        inverse = torch.linalg.inv(s) if bool(s.isfinite().all()) else s  # once infinite, always
        return (left - u @ (u.mT @ left)) @ inverse, u.mT @ left, (right - v @ (v.mT @ right)) @ inverse.mT

    for _ in range(steps):
        u, s, v = runge_kutta(tuple(y), 1 / steps, rate)
        if not all(bool(p.isfinite().all()) for p in (u, s, v)):
            return torch.full((SIZE, SIZE), math.inf, dtype=s.dtype)
        (u, ru), (v, rv) = torch.linalg.qr(u), torch.linalg.qr(v)
        y = [u, ru @ s @ rv.mT, v]
    return y[0] @ y[1] @ y[2].mT


def serial_bug(seed: int, least: float, steps: int, *, galerkin: bool = True) -> Tensor:
    """The serial basis update: both bases move and are augmented, then the core moves in them, cut to RANK."""
    a, b, u, s, v = matrix_problem(seed, least)
    h = 1 / steps
    for _ in range(steps):
        (k,) = runge_kutta((u @ s,), h, lambda k, v=v: (a @ k + k @ (v.mT @ b.mT @ v),))
        (w,) = runge_kutta((v @ s.mT,), h, lambda w, u=u: (b @ w + w @ (u.mT @ a.mT @ u),))
        u1, v1 = torch.linalg.qr(torch.cat((u, k), 1)).Q, torch.linalg.qr(torch.cat((v, w), 1)).Q
        core = (u1.mT @ u) @ s @ (v.mT @ v1)
        if galerkin:
            left, right = u1.mT @ a @ u1, v1.mT @ b.mT @ v1
            (core,) = runge_kutta((core,), h, lambda c, p=left, q=right: (p @ c + c @ q,))
        p, d, qh = torch.linalg.svd(core)
        u, s, v = u1 @ p[:, :RANK], torch.diag(d[:RANK]), v1 @ qh[:RANK].mT
    return u @ s @ v.mT


def parallel_bug(seed: int, least: float, steps: int) -> Tensor:
    """The method on the matrix equation."""
    a, b, u, s, v = matrix_problem(seed, least)
    start = TreeNetwork((0, 1), (s, u, v))
    return ttn_bug(start, [{0: a}, {1: b}], 1.0, steps=steps, tol=1e-14, rank=RANK).to_dense()


def solve_exactly(seed: int, least: float) -> Tensor:
    """The solution at time 1."""
    a, b, u, s, v = matrix_problem(seed, least)
    return torch.matrix_exp(a) @ u @ s @ v.mT @ torch.matrix_exp(b).mT


def distance(y: Tensor, other: Tensor) -> float:
    """The relative difference, infinite where a number is not finite."""
    value = float((y - other).norm() / other.norm())
    return value if math.isfinite(value) else math.inf
