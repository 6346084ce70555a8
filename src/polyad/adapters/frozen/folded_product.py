"""The product with a weight and an update in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad.adapters.frozen.format_gradients import GRADIENTS, Gradients, with_tensors
from polyad.formats import Format


def folded_product(
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
    product = _FoldedProduct.apply(x, weight, bias, like, scale, structured, *tensors.values())
    assert isinstance(product, Tensor)
    return product


class _FoldedProduct(torch.autograd.Function):
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
        return F.linear(x, with_tensors(like, tensors).added_to(weight, scale), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Gradients:
        (grad,), (x, weight, *tensors), needs = grads, ctx.saved_tensors, ctx.needs_input_grad
        update = with_tensors(ctx.like, tensors)
        rows, onto = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        dweight, dbias = rows.mT @ onto if needs[1] else None, rows.sum(0) if needs[2] else None
        of_update: Gradients = (None,) * len(tensors)
        if ctx.gradient is None:
            wanted, dense = _dense_with_graph(update, needs[6:])
            changed = torch.add(weight, dense, alpha=ctx.scale)
            if any(needs[6:]):
                of_update = _gradients_through(dense, wanted, rows.mT @ onto)
        else:
            changed = update.added_to(weight, ctx.scale) if needs[0] else weight
            of_update = ctx.gradient(update, onto, rows, needs[6:]) if any(needs[6:]) else of_update
        dx = (rows @ changed).view(x.shape) if needs[0] else None
        return dx, dweight, dbias, None, None, None, *(t if t is None else t * ctx.scale for t in of_update)


def _dense_with_graph(update: Format, needs: Sequence[bool]) -> tuple[list[Tensor | None], Tensor]:
    """The tensors whose gradients are asked for, and the dense form as it follows from them."""
    with torch.enable_grad():
        tensors = [
            t if t.requires_grad or not n else t.detach().requires_grad_()
            for t, n in zip(update.tensors().values(), needs, strict=True)
        ]
        dense = with_tensors(update, tensors).to_dense()
    return [t if n else None for t, n in zip(tensors, needs, strict=True)], dense


def _gradients_through(dense: Tensor, tensors: Sequence[Tensor | None], gradient: Tensor) -> Gradients:
    """The gradients of these tensors from the dense one."""
    wanted = [t for t in tensors if t is not None]
    slopes = iter(torch.autograd.grad(dense, wanted, gradient, create_graph=torch.is_grad_enabled()))
    return tuple([t if t is None else next(slopes) for t in tensors])
