"""The product of a thin matrix with rows of which a share is dropped, without keeping the dropped rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def narrowed(x: Tensor, right: Tensor, dropout: float = 0.0) -> Tensor:
    """``dropout(x) @ right.mT`` for x of shape (…, n) and right (r, n).

    What is dropped is drawn again for the gradient, from a number that torch's global generator gives, so that x
    itself is all that is kept: layers with one input keep it once.
    """
    if not dropout:
        return F.linear(x, right)
    if torch.compiler.is_compiling():  # the compiler draws again by itself
        return F.linear(F.dropout(x, dropout), right)
    found = _Dropped.apply(x, right, dropout)
    assert isinstance(found, Tensor)
    return found


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, right: Tensor, dropout: float) -> Tensor:
        ctx.seed, ctx.dropout = int(torch.randint(2**62, ())), dropout
        ctx.save_for_backward(x, right)
        return F.linear(x * _kept(x, dropout, ctx.seed), right)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:
        (grad,), (x, right) = grads, ctx.saved_tensors
        kept = _kept(x, ctx.dropout, ctx.seed)
        rows = grad.reshape(-1, grad.shape[-1])
        down = (x * kept).reshape(-1, x.shape[-1]) if ctx.needs_input_grad[1] else None
        onto = (grad @ right) * kept if ctx.needs_input_grad[0] else None
        return onto, None if down is None else rows.mT @ down, None


def _kept(x: Tensor, dropout: float, seed: int) -> Tensor:
    """Zero where x is dropped, 1 / (1 - dropout) elsewhere."""
    drawn = torch.empty_like(x, memory_format=torch.contiguous_format)
    drawn.bernoulli_(1 - dropout, generator=Generator(x.device).manual_seed(seed))
    return drawn.div_(1 - dropout)
