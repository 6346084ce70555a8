"""The gradient of truncated singular triples, finite wherever the triples themselves are not determined."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_STEPS = 200  # of conjugate gradients, where the dropped singular vectors are unknown


def connect_gradient(
    x: Tensor, u: Tensor, s: Tensor, vh: Tensor, basis: Tensor | None = None, values: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Give u, s and vh their gradients to x, of which they are the leading triples.

    x has shape (*batch, n, m), u (*batch, n, r), s (*batch, r), vh (*batch, r, m). ``basis`` (*batch, n, n) and
    ``values`` (*batch, n) are all left singular vectors and values, or None where only the leading ones are known:
    then the part of the gradient that goes through the dropped ones is solved for by conjugate gradients.

    Quotients by differences of singular values are Lorentzian-broadened: d / (d² + ε²) for 1 / d, with ε far below
    the differences that the dtype resolves. So a function that does not depend on the choice of vectors within
    equal singular values has its gradient, and any other function a finite one. The right vectors get theirs as
    ``uᴴ x / s``: at equal singular values that of ``u s vh`` could not be told from those of the three parts.
    """
    if not (x.requires_grad and torch.is_grad_enabled()):
        return u, s, vh
    left, values_s = _Left.apply(x, u, s, vh, basis, values)  # pyright: ignore[reportGeneralTypeIssues]
    right = (left.mH @ x) * _inverse(values_s, s).unsqueeze(-1)
    return left, values_s, vh + (right - right.detach())


class _Left(torch.autograd.Function):
    """The left vectors and the singular values."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, u: Tensor, s: Tensor, vh: Tensor, basis: Tensor | None, values: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, u, s, vh, basis, values)
        return u.view_as(u), s.view_as(s)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gu: Tensor, gs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, u, s, vh, basis, values = ctx.saved_tensors
        within = u.mH @ gu
        if basis is None:
            y = _solve_dropped(x, u, s, gu - u @ within)
        else:
            r = s.shape[-1]
            y = basis[..., r:] @ _quotients(basis[..., r:].mH @ gu, values[..., r:], s)
        z = (x.mH @ y) * _inverse(s, s).unsqueeze(-2)
        core = _quotients(within - within.mH, s, s) + torch.diag_embed(gs)
        return (u @ core + y) @ vh + u @ z.mH, None, None, None, None, None


def _quotients(g: Tensor, rows: Tensor, s: Tensor) -> Tensor:
    """``g_ji s_i / (s_i² - rows_j²)`` for g of shape (*batch, rows, r)."""
    rows, columns = rows.unsqueeze(-1), s.unsqueeze(-2)
    return g * columns * _inverse_difference(columns - rows, s) * _inverse(columns + rows, s)


def _solve_dropped(x: Tensor, u: Tensor, s: Tensor, gu: Tensor) -> Tensor:
    """``(s_i² - x xᴴ)⁻¹ s_i gu_i`` off the kept vectors, by conjugate gradients, each column with its own shift."""

    def off(y: Tensor) -> Tensor:
        return y - u @ (u.mH @ y)

    shift = s.square().unsqueeze(-2)
    residual = off(s.unsqueeze(-2) * gu)
    y = torch.zeros_like(residual)
    direction = residual
    squares = _squares(residual)
    enough = squares * torch.finfo(x.dtype).eps ** 2
    for _ in range(_STEPS):
        image = shift * direction - off(x @ (x.mH @ direction))
        curvature = (direction.conj() * image).sum(-2, keepdim=True).real
        going = (squares > enough) & (curvature > 0)  # not so where the cut goes through equal values
        if not bool(going.any()):
            break
        step = torch.where(going, squares / torch.where(going, curvature, 1), 0)
        y = y + step * direction
        residual = residual - step * image
        after = _squares(residual)
        direction = residual + torch.where(going, after / torch.where(going, squares, 1), 0) * direction
        squares = torch.where(going, after, 0)
    return y


def _squares(columns: Tensor) -> Tensor:
    """The squared length of each column, (*batch, 1, r)."""
    return (columns.conj() * columns).real.sum(-2, keepdim=True)


def _inverse_difference(difference: Tensor, s: Tensor) -> Tensor:
    return _lorentz(difference, s[..., :1], torch.finfo(s.dtype).eps ** 0.7)


def _inverse(value: Tensor, s: Tensor) -> Tensor:
    return _lorentz(value, s[..., :1], 8 * torch.finfo(s.dtype).eps)


def _lorentz(value: Tensor, largest: Tensor, share: float) -> Tensor:
    """``value / (value² + ε²)`` with ε this share of the largest singular value, 0 where that is 0."""
    largest = largest.reshape(largest.shape[:-1] + (1,) * (value.ndim - largest.ndim + 1))
    unit = torch.where(largest > 0, largest, 1)
    value = value / unit
    return value / (value.square() + share**2) / unit
