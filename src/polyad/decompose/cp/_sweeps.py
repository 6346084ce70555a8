"""Alternating least squares for sums of outer products: many tensors and many starts in one loop."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyad._callback import Callback
from polyad.decompose.alternating.mttkrp import Products, hadamard, residual


def refine_factors(
    x: Tensor,
    factors: list[Tensor],
    norm: Tensor,
    *,
    stop: float,
    max_iter: int,
    ridge: float = 0.0,
    enough: Tensor | None = None,
    callback: Callback | None = None,
) -> tuple[list[Tensor], Tensor]:
    """Refine ``factors``, float64 of shape (batch, starts, rank, I_n), by sweeps towards ``x / norm``.

    x is (batch, I₁, …, I_N) and ``norm`` (batch,). Returns the factors and the squared errors (batch, starts). An
    entry of the batch is done when a sweep of each of its starts gains less than ``stop`` of the squared error, or
    leaves less than ``enough`` (batch,) or rounding; the rest goes on without it.
    """
    count, starts = factors[0].shape[:2]
    out, errors = [factor.clone() for factor in factors], factors[0].new_ones(count, starts)
    active = torch.arange(count, device=x.device)
    floor = (30 * torch.finfo(x.dtype).eps) ** 2
    limit = torch.full((count,), floor, dtype=torch.float64) if enough is None else enough.clamp(min=floor)
    run = Sweeps(x, factors, norm, ridge)
    for sweep in range(max_iter):
        gain = run.sweep()
        going = ((gain > stop * run.error + floor) & (run.error > limit[active].unsqueeze(1))).any(1)
        last = sweep == max_iter - 1 or not bool(going.any())
        if callback is not None:
            callback(sweep, max_iter, {"error": float(run.fit().max()) ** 0.5})
        if last or 2 * int(going.sum()) <= len(active):
            for whole, part in zip(out, run.factors, strict=True):
                whole[active] = part
            errors[active] = run.fit()
            if last:
                break
            active = active[going]
            run = run.subset(going)
    return out, errors


class Sweeps:
    """Factors under refinement, with their Gram matrices and a running squared error.

    A least-squares step lowers the squared error by an amount that is known to full relative precision, since it
    is a sum of squares. The running error is the usual difference of norms while that is accurate, then a residual
    formed once, less the gains since.
    """

    def __init__(self, x: Tensor, factors: list[Tensor], norm: Tensor, ridge: float) -> None:
        self.x, self.norm, self.ridge = x, norm, ridge
        self.eps = torch.finfo(x.dtype).eps
        self.factors = list(factors)
        self.grams = [factor @ factor.mT for factor in factors]
        self.products = Products(x)
        self.error = torch.full(factors[0].shape[:2], math.inf, dtype=torch.float64)  # with the ridge's penalty
        self.slack = self.error  # how far the account may be off

    def sweep(self) -> Tensor:
        """Update every mode once; by how much the squared error fell, (batch, starts)."""
        gain = torch.zeros_like(self.error)
        product = hessian = torch.empty(0)
        for mode in range(len(self.factors)):
            product = self.products(mode, self.factors).double() / self.norm[:, None, None, None]
            hessian = hadamard([gram for other, gram in enumerate(self.grams) if other != mode])
            if self.ridge:
                hessian = hessian + self.ridge * torch.eye(hessian.shape[-1]).to(hessian)
            step, lost = damped_step(hessian, product - hessian @ self.factors[mode], self.eps)
            self.factors[mode] = self.factors[mode] + step
            self.grams[mode] = self.factors[mode] @ self.factors[mode].mT
            gain = gain + lost
        self._update_error(product, hessian, gain)
        return gain

    def fit(self) -> Tensor:
        """The squared error without the ridge's penalty, (batch, starts)."""
        return (self.error - self._penalty()).clamp(min=0)

    def subset(self, going: Tensor) -> Sweeps:
        """The same for some tensors of the batch."""
        rest = Sweeps(self.x[going], [factor[going] for factor in self.factors], self.norm[going], self.ridge)
        rest.error, rest.slack = self.error[going], self.slack[going]
        return rest

    def _penalty(self) -> Tensor | float:
        if not self.ridge:
            return 0.0
        return self.ridge * sum(gram.diagonal(dim1=-2, dim2=-1).sum(-1) for gram in self.grams)

    def _update_error(self, product: Tensor, hessian: Tensor, gain: Tensor) -> None:
        last = self.factors[-1]
        inner, square = (product * last).sum((-2, -1)), ((hessian @ last) * last).sum((-2, -1))
        if self.ridge:
            square = square - self.ridge * last.square().sum((-2, -1))
        loose = 100 * self.eps * (1 + square + 2 * inner.abs())
        direct = 1 - 2 * inner + square + self._penalty()
        accurate = direct > 100 * loose
        running = self.error - gain
        self.error = torch.where(accurate, direct, running)
        self.slack = torch.where(accurate, loose, self.slack + 1e-6 * gain)
        if not bool((self.error > 10 * self.slack).all()):
            self.error = residual(self.x, self.factors, self.norm) + self._penalty()
            self.slack = 1e-4 * self.error


def damped_step(hessian: Tensor, gradient: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """A step towards the minimum of a quadratic, and what it gains; singular or not, it never fails.

    ``hessian`` is (…, r, r), positive semidefinite up to rounding, ``gradient`` (…, r, n), good to ``eps``. The
    matrix is scaled to a unit diagonal and a small multiple of the identity added, ten times r ``eps`` and a hundred
    times more while Cholesky's factorisation still breaks down. Since it is the step that is solved for, the addition
    slows the steps along directions that hardly matter, but does not move the minimum.
    """
    r = hessian.shape[-1]
    size = hessian.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    scale = torch.where(size > 0, 1 / size, 0).nan_to_num(posinf=0.0).unsqueeze(-1)
    cosines = hessian * scale * scale.mT
    added, diagonal = 10 * r * eps, cosines.diagonal(dim1=-2, dim2=-1)
    diagonal += (scale.squeeze(-1) == 0).to(hessian.dtype).add_(added)
    lower, info = torch.linalg.cholesky_ex(cosines)
    while bool(info.any()) and added < 1:
        diagonal += 99 * added
        added *= 100
        lower, info = torch.linalg.cholesky_ex(cosines)
    right = gradient * scale
    step = torch.cholesky_solve(right, lower)
    gain = (right * step).sum((-2, -1)) + added * step.square().sum((-2, -1))
    return step * scale, gain
