"""A structured update beside a product: for the gradient its input is kept, and nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyad.adapters.frozen.format_gradients import GRADIENTS, alike
from polyad.adapters.frozen.low_rank_product import kept_mask, kept_share
from polyad.formats import Format


def alongside(total: Tensor, x: Tensor, update: Format, scale: float, dropout: float = 0.0) -> Tensor:
    """``total + scale · dropout(x) updateᵀ`` for x (…, n) and an update (out, n) of a kind in ``GRADIENTS``.

    All are of one dtype. Inputs are dropped, and drawn again for the gradient, as in ``beside``.
    """
    with torch.no_grad():
        like = update.to(device="meta")
    found = _Alongside.apply(total, x, like, scale, dropout, *update.tensors().values())
    assert isinstance(found, Tensor)
    return found


class _Alongside(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, total: Tensor, x: Tensor, like: Format, scale: float, dropout: float, *tensors: Tensor
    ) -> Tensor:
        ctx.like, ctx.dropout, ctx.seed = like, dropout, int(torch.randint(2**62, ())) if dropout else 0
        ctx.scale = scale / kept_share(dropout) if dropout else scale
        ctx.save_for_backward(x, *tensors)
        drawn = x * kept_mask(x, dropout, ctx.seed) if dropout else x
        return torch.add(total, alike(like, tensors).linear(drawn), alpha=ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, *tensors), needs = grads, ctx.saved_tensors, ctx.needs_input_grad
        update, own = alike(ctx.like, tensors), needs[5:]
        kept = kept_mask(x, ctx.dropout, ctx.seed) if ctx.dropout else None
        scaled = grad * ctx.scale
        dx = update.transpose().linear(scaled) if needs[1] else None
        dx = dx if dx is None or kept is None else dx * kept
        found: tuple[Tensor | None, ...] = (None,) * len(tensors)
        if any(own):
            drawn = (x if kept is None else x * kept).reshape(-1, x.shape[-1])
            found = GRADIENTS[type(update)][0](update, drawn, scaled.reshape(-1, grad.shape[-1]), own)
        return grad if needs[0] else None, dx, None, None, None, *found
