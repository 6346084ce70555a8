"""A structured update beside a product; for the gradient it keeps the input and nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyad.adapters.frozen.format_gradients import GRADIENTS, with_tensors
from polyad.adapters.frozen.low_rank_product import kept_mask, kept_share
from polyad.formats import Format


def structured_product(total: Tensor, x: Tensor, update: Format, scale: float, dropout: float = 0.0) -> Tensor:
    """``total + scale · dropout(x) updateᵀ`` for x (…, n) and an update (out, n) of a kind in ``GRADIENTS``.

    All are of one dtype. Inputs are dropped, and drawn again for the gradient, as in ``low_rank_product``.
    """
    with torch.no_grad():
        like = update.to(device="meta")
    result = _StructuredProduct.apply(total, x, like, scale, dropout, *update.tensors().values())
    assert isinstance(result, Tensor)
    return result


class _StructuredProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, total: Tensor, x: Tensor, like: Format, scale: float, dropout: float, *tensors: Tensor
    ) -> Tensor:
        ctx.like, ctx.dropout, ctx.seed = like, dropout, int(torch.randint(2**62, ())) if dropout else 0
        ctx.scale = scale / kept_share(dropout) if dropout else scale
        ctx.save_for_backward(x, *tensors)
        inputs = x * kept_mask(x, dropout, ctx.seed) if dropout else x
        return torch.add(total, with_tensors(like, tensors).linear(inputs), alpha=ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, *tensors), needs = grads, ctx.saved_tensors, ctx.needs_input_grad
        update, asked = with_tensors(ctx.like, tensors), needs[5:]
        mask = kept_mask(x, ctx.dropout, ctx.seed) if ctx.dropout else None
        scaled = grad * ctx.scale
        dx = update.transpose().linear(scaled) if needs[1] else None
        dx = dx if dx is None or mask is None else dx * mask
        grads_of_update: tuple[Tensor | None, ...] = (None,) * len(tensors)
        if any(asked):
            inputs = (x if mask is None else x * mask).reshape(-1, x.shape[-1])
            grads_of_update = GRADIENTS[type(update)][0](update, inputs, scaled.reshape(-1, grad.shape[-1]), asked)
        return grad if needs[0] else None, dx, None, None, None, *grads_of_update
