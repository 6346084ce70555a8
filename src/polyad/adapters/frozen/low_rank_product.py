"""A frozen product with a low-rank change beside it, in one pass, whose gradients keep little.

Products with a thin matrix are written with the thin side in front, ``thin @ wide.mT``: on processors the other way
round takes up to five times as long.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

NARROW = 8
"""Below this rank a factor that is not laid out row by row multiplies ten times as slowly."""

BLOCK = 128
"""Rows whose products are summed at once: they stay in a processor's cache."""

FEW = 2**15
"""Numbers in an output up to which a call costs more than what it does."""


def is_traced() -> bool:
    """True while torch must see plain operations: it compiles, transforms functions, or runs gradients forward."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()  # vmap and its like, which want a rule for each function
        or forward_ad._current_level >= 0
    )


def low_rank_product(
    x: Tensor,
    weight: Tensor | None,
    total: Tensor | None,
    left: Tensor,
    right: Tensor,
    scale: float,
    dropout: float = 0.0,
    gains: Tensor | None = None,
) -> Tensor:
    """``(x weightᵀ + total + scale · dropout(x) rightᵀ leftᵀ) gains`` for x (…, n), left (out, r) and right (r, n).

    ``total`` is what is there, (…, out), if there is no weight, and a bias (out,) otherwise; ``gains`` is (out,). All
    are of one dtype. Kept for the gradient are x unless right is frozen, the inner product (r, rows) and, where gains
    are trained, the result, which what follows usually keeps too. What is dropped is drawn again from a
    number that torch's global generator gives, so that layers with one input keep it once; the share dropped is
    rounded to a multiple of 2⁻¹⁶, and what is kept is divided by the share that is.
    """
    if is_traced() or _small(x, left, dropout) or (gains is not None and bool((gains == 0).any())):
        inner = F.linear(F.dropout(x, dropout) if dropout else x, right)
        product = total if weight is None else F.linear(x, weight, total)
        assert product is not None
        product = torch.add(product, F.linear(inner, left), alpha=scale)
        return product if gains is None else product * gains
    if torch.is_grad_enabled() and not right.requires_grad and not dropout:  # nothing asks for x again
        total = total if weight is None else F.linear(x, weight, total)
        inner = (right @ x.reshape(-1, x.shape[-1]).mT).mT
        product = _LowRankProduct.apply(inner, None, total, left, None, gains, scale, dropout)
    else:
        product = _LowRankProduct.apply(x, weight, total, left, right, gains, scale, dropout)
    assert isinstance(product, Tensor)
    return product


class _LowRankProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        total: Tensor | None,
        left: Tensor,
        right: Tensor | None,
        gains: Tensor | None,
        scale: float,
        dropout: float,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        scale = scale / kept_share(dropout) if dropout else scale
        ctx.seed, ctx.scale, ctx.dropout = int(torch.randint(2**62, ())) if dropout else 0, scale, dropout
        inputs = rows * kept_mask(rows, dropout, ctx.seed) if dropout else rows
        inner = inputs.mT if right is None else right @ inputs.mT
        if weight is None:
            assert total is not None
            output = torch.addmm(total.reshape(-1, len(left)), inner.mT, left.mT, alpha=scale)
        else:
            output = F.linear(rows, weight, total).addmm_(inner.mT, left.mT, alpha=scale)
        if gains is not None:
            output.mul_(gains)
        output = output.view(total.shape if weight is None and total is not None else (*x.shape[:-1], len(left)))
        trained = gains is not None and gains.requires_grad
        ctx.flat = weight is not None
        ctx.save_for_backward(
            x, weight, left, right, inner if left.requires_grad else None, gains, output if trained else None
        )
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight, left, right, inner, gains, output) = grads, ctx.saved_tensors
        onto, needs = x.reshape(-1, x.shape[-1]), ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        mask = kept_mask(onto, ctx.dropout, ctx.seed) if ctx.dropout and (needs[0] or needs[4]) else None
        dgains = None
        if gains is not None:
            dgains = _inner(rows, output.reshape(rows.shape)) / gains if output is not None else None
            if weight is None:  # the gradient of the total is asked for as it is
                rows, gains = rows * gains, None
            else:  # on the matrices they cost less than on the rows
                weight, left = weight * gains.unsqueeze(1), left * gains.unsqueeze(1)
        dx = dright = None
        if needs[0] or needs[4]:
            thin = (left * ctx.scale if ctx.scale != 1 else left).mT
            back = (thin.contiguous() if len(thin) < NARROW else thin) @ rows.mT
            dright = back @ (onto if mask is None else onto * mask) if needs[4] else None
            dx = _input_gradient(rows, weight, back, right, mask).view(x.shape) if needs[0] else None
        dleft = None
        if needs[3]:
            if torch.is_grad_enabled():  # for a gradient of this gradient
                inputs = onto * kept_mask(onto, ctx.dropout, ctx.seed) if ctx.dropout else onto
                inner = inputs.mT if right is None else right @ inputs.mT
            dleft = (inner @ rows).mT
            dleft = dleft if ctx.scale == 1 else dleft * ctx.scale
        dweight = rows.mT @ onto if needs[1] else None
        dtotal = None if not needs[2] else rows.sum(0) if ctx.flat else rows.view(grad.shape)
        if gains is not None:
            dleft, dweight = (t if t is None else t * gains.unsqueeze(1) for t in (dleft, dweight))
            dtotal = dtotal if dtotal is None else dtotal * gains
        return dx, dweight, dtotal, dleft, dright, dgains, None, None


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """The inner products of the columns of two matrices, blocks of rows at a time, so that no third is written."""
    if torch.is_grad_enabled():
        return (a * b).sum(0)
    wide = torch.promote_types(a.dtype, torch.float32)
    total = torch.zeros(min(BLOCK, len(a)), a.shape[1], dtype=wide, device=a.device)
    for one, other in zip(a.split(BLOCK), b.split(BLOCK), strict=True):
        total[: len(one)].addcmul_(one, other)
    return total.sum(0).to(a.dtype)


def _input_gradient(
    rows: Tensor, weight: Tensor | None, back: Tensor, right: Tensor | None, mask: Tensor | None
) -> Tensor:
    """The gradient of x, from that of the product and that of the inner one; the latter alone without a right."""
    if right is None:
        return back.mT
    if mask is not None:
        low = (back.mT @ right) * mask
        return low if weight is None else low.addmm_(rows, weight)
    return back.mT @ right if weight is None else (rows @ weight).addmm_(back.mT, right)


def kept_mask(x: Tensor, dropout: float, seed: int) -> Tensor:
    """One where x is kept, zero elsewhere, from 16 random bits each: a fifth of the time of ``bernoulli_``."""
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None, generator=Generator(x.device).manual_seed(seed))
    mask = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    draws = words.view(torch.int16)[: x.numel()].view(x.shape)
    return torch.lt(draws, round(kept_share(dropout) * 2**16) - 2**15, out=mask)


def kept_share(dropout: float) -> float:
    """The share that is kept: 1 - dropout, in whole parts of 2¹⁶."""
    return min(max(round((1 - dropout) * 2**16), 1), 2**16 - 1) / 2**16


def _small(x: Tensor, left: Tensor, dropout: float) -> bool:
    """True for so little work that the call of a function with its own gradient would take longer."""
    return not dropout and x.numel() // x.shape[-1] * left.shape[0] < FEW
