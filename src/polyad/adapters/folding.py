"""The product with a weight and an update in it, and gradients of the update's own tensors.

A dense gradient of the weight costs the layer's product once more, which for an update of few numbers is mostly
wasted. The kinds in ``GRADIENTS`` have theirs from x and the output's gradient directly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad.formats import Circulant, Format, KhatriRao, Kronecker, LowRank, Toeplitz

Found = tuple[Tensor | None, ...]


def folded(
    x: Tensor, weight: Tensor, bias: Tensor | None, update: Format, scale: float, *, structured: bool = True
) -> Tensor:
    """``x (weight + scale · update)ᵀ + bias``, all of one dtype.

    The sum is formed twice, for the product and for the gradient of x, and not kept; x is. With ``structured`` the
    update's gradients are those of its kind in ``GRADIENTS``. Otherwise they follow from the dense gradient of the
    weight, through the update's dense form, which is stated once more.
    """
    tensors = update.tensors()
    with torch.no_grad():
        like = update.to(device="meta")
    found = _Folded.apply(x, weight, bias, like, scale, structured, *tensors.values())
    assert isinstance(found, Tensor)
    return found


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        like: Format,
        scale: float,
        structured: bool,
        *tensors: Tensor,
    ) -> Tensor:
        ctx.like, ctx.scale = like, scale
        ctx.gradient = GRADIENTS[type(like)][0] if structured else None
        ctx.save_for_backward(x, weight, *tensors)
        return F.linear(x, _alike(like, tensors).added_to(weight, scale), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Found:
        (grad,), (x, weight, *tensors), needs = grads, ctx.saved_tensors, ctx.needs_input_grad
        update = _alike(ctx.like, tensors)
        rows, onto = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        dweight, dbias = rows.mT @ onto if needs[1] else None, rows.sum(0) if needs[2] else None
        found: Found = (None,) * len(tensors)
        if ctx.gradient is None:
            own, dense = _stated(update, needs[6:])
            changed = torch.add(weight, dense, alpha=ctx.scale)
            if any(needs[6:]):
                found = _through(dense, own, rows.mT @ onto)
        else:
            changed = update.added_to(weight, ctx.scale) if needs[0] else weight
            found = ctx.gradient(update, onto, rows, needs[6:]) if any(needs[6:]) else found
        dx = (rows @ changed).view(x.shape) if needs[0] else None
        return dx, dweight, dbias, None, None, None, *(t if t is None else t * ctx.scale for t in found)


def _alike(like: Format, tensors: Sequence[Tensor]) -> Format:
    """The format of these tensors in the order of ``tensors()``."""
    return like.replace(dict(zip(like.tensors(), tensors, strict=True)))


def _stated(update: Format, needs: Sequence[bool]) -> tuple[list[Tensor | None], Tensor]:
    """The tensors whose gradients are asked for, and the dense form as it follows from them."""
    with torch.enable_grad():
        tensors = [
            t if t.requires_grad or not n else t.detach().requires_grad_()
            for t, n in zip(update.tensors().values(), needs, strict=True)
        ]
        dense = _alike(update, tensors).to_dense()
    return [t if n else None for t, n in zip(tensors, needs, strict=True)], dense


def _through(dense: Tensor, own: Sequence[Tensor | None], gradient: Tensor) -> Found:
    """The gradients of these tensors from the dense one."""
    wanted = [t for t in own if t is not None]
    found = iter(torch.autograd.grad(dense, wanted, gradient, create_graph=torch.is_grad_enabled()))
    return tuple([t if t is None else next(found) for t in own])


def low_rank_gradient(update: LowRank, x: Tensor, g: Tensor, needs: Sequence[bool]) -> Found:
    """Of left and right; the thin matrix is in front, as in ``beside``."""
    left = ((update.right @ x.mT) @ g).mT if needs[0] else None
    return left, (update.left.mT @ g.mT) @ x if needs[1] else None


def kronecker_gradient(update: Kronecker, x: Tensor, g: Tensor, needs: Sequence[bool]) -> Found:
    """Of first (K, a, c) and second (K, b, d), from the side on which the products are smaller."""
    (_, a, c), (_, b, d) = update.first.shape, update.second.shape
    if _kronecker_side(a, b, c, d) > _kronecker_side(c, d, a, b):
        found = kronecker_gradient(update.transpose(), g, x, needs)
        return tuple([t if t is None else t.mT for t in found])
    x, g = x.view(-1, c, d), g.view(-1, b)  # (rows, c, d), (rows a, b)
    first: list[Tensor] = []
    second: list[Tensor] = []
    for one, other in zip(update.first, update.second, strict=True):
        if needs[0]:
            first.append(torch.bmm((g @ other).view(-1, a, d), x.mT).sum(0))
        if needs[1]:
            second.append(g.mT @ torch.bmm(one.expand(len(x), a, c), x).view(-1, d))
    return torch.stack(first) if first else None, torch.stack(second) if second else None


def _kronecker_side(a: int, b: int, c: int, d: int) -> int:
    """Operations a row for one term with the products (a, d) wide."""
    return 4 * a * d * (b + c)


def circulant_gradient(update: Circulant, x: Tensor, g: Tensor, needs: Sequence[bool]) -> Found:
    """Of the columns: the correlation of g with x block by block, summed over rows frequency by frequency.

    The transforms are products with a real matrix (2 (b/2 + 1), b), which for blocks of some dozens take less time
    than fast ones, and leave the frequencies in front.
    """
    p, q, b = update.columns.shape
    if not needs[0]:
        return (None,)
    waves = _waves(b, x)  # (frequencies, 2, b): cosines and sines
    spectrum = (waves.flatten(0, 1) @ x.reshape(-1, b).mT).view(len(waves), -1, q)  # re over im, (f, 2 rows, q)
    thrice = torch.cat((waves, -waves[:, :1]), 1).flatten(0, 1)
    other = (thrice @ g.reshape(-1, b).mT).view(len(waves), -1, p)  # re, im, -re: (f, 3 rows, p)
    rows = len(x)
    real, imaginary = other[:, : 2 * rows].mT @ spectrum, other[:, rows:].mT @ spectrum  # (f, p, q)
    return (torch.fft.irfft(torch.complex(real, imaginary).movedim(0, -1), n=b),)


def toeplitz_gradient(update: Toeplitz, x: Tensor, g: Tensor, needs: Sequence[bool]) -> Found:  # noqa: ARG001
    """Of the diagonals: the sums over those of the dense gradient, read in rows of one number fewer."""
    if not needs[0]:
        return (None,)
    dense = (g.mT @ x).flip(-1)
    out, n = dense.shape
    return (F.pad(dense, (0, out)).flatten()[: out * (n + out - 1)].view(out, -1).sum(0),)


def khatri_rao_gradient(update: KhatriRao, x: Tensor, g: Tensor, needs: Sequence[bool]) -> Found:
    """Of first and second: the dense gradient, which all of it goes into, summed over one side of each column."""
    dense = g.mT @ x
    if update.by_rows:
        dense = dense.mT
    dense = dense.reshape(update.first.shape[-2], -1, dense.shape[-1])  # (a, b, columns)
    first = torch.stack([(dense * t).sum(1) for t in update.second]) if needs[0] else None
    return first, torch.stack([(dense * t.unsqueeze(1)).sum(0) for t in update.first]) if needs[1] else None


def _waves(b: int, like: Tensor) -> Tensor:
    """The real transform of length b as a matrix: cos and -sin of 2π f k / b, (b/2 + 1, 2, b)."""
    k = torch.arange(b, device=like.device)
    angles = (k[: b // 2 + 1].unsqueeze(1) * k % b).to(torch.float64) * (2 * math.pi / b)
    return torch.stack((angles.cos(), -angles.sin()), 1).to(like.dtype)


def _product(update: Format) -> int:
    """Operations of a row of the dense gradient."""
    return 2 * update.shape[0] * update.shape[1]


def _circulant_operations(update: Circulant) -> int:
    p, q, b = update.columns.shape
    return (b // 2 + 1) * (4 * q * b + 6 * p * b + 8 * p * q)


def _kronecker_operations(update: Kronecker) -> int:
    (terms, a, c), (_, b, d) = update.first.shape, update.second.shape
    return terms * min(_kronecker_side(a, b, c, d), _kronecker_side(c, d, a, b))


Gradient = Callable[[Any, Tensor, Tensor, Sequence[bool]], Found]
GRADIENTS: dict[type[Format], tuple[Gradient, Callable[[Any], int]]] = {
    LowRank: (low_rank_gradient, lambda update: update.flops(2 if update.right.requires_grad else 1)),
    Kronecker: (kronecker_gradient, _kronecker_operations),
    Circulant: (circulant_gradient, _circulant_operations),
    KhatriRao: (khatri_rao_gradient, _product),
    Toeplitz: (toeplitz_gradient, _product),
}
"""What gives the gradients of a kind's tensors from x (rows, in) and g (rows, out), and its operations a row."""
