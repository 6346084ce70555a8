"""Attention to keys and values that lie in buffers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def attend_plainly(
    q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float | None = None, window: int | None = None
) -> Tensor:
    """Causal attention (batch, heads, tokens, value width) of the last tokens to all, by its definition."""
    mask = causal_mask(q.shape[2], k.shape[2], window, q.device)
    return attend_masked(q, k, v, scale, softcap, mask)


def causal_mask(tokens: int, length: int, window: int | None, device: torch.device) -> Tensor:
    """(tokens, length): true where one of the last ``tokens`` of ``length`` sees a token."""
    rows = torch.arange(length - tokens, length, device=device)[:, None]
    columns = torch.arange(length, device=device)
    visible = columns <= rows
    return visible if window is None else visible & (columns > rows - window)


def attend_masked(
    q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float | None, mask: Tensor | None
) -> Tensor:
    """Attention of queries (batch, heads, tokens, width) to (batch, key heads, length, width) by a mask.

    ``mask`` (…, tokens, length) is true where a token is seen; None is the causal one of as many tokens.
    """
    group = q.shape[1] // k.shape[1]
    if group > 1:
        k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    if softcap is not None:
        return _capped(q, k, v, scale, softcap, mask)
    width = v.shape[-1]
    if k.shape[-1] != width:  # torch's fused kernels want one width
        wide = max(k.shape[-1], width)
        q, k, v = (F.pad(x, (0, wide - x.shape[-1])) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale)
    return out[..., :width]


def attend_one(q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float | None, mask: Tensor | None) -> Tensor:
    """Attention of one token: the queries of a group are the rows (batch, key heads, group, width) of its key head.

    ``mask`` (batch, 1, 1, length), or None where all is seen.
    """
    if softcap is not None:
        return _capped(q, k, v, scale, softcap, mask)
    if k.shape[-1] != v.shape[-1]:  # a row of scores is small: two products
        scores = (q @ k.mT) * scale
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def _capped(q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float, mask: Tensor | None) -> Tensor:
    scores = torch.tanh((q @ k.mT) * (scale / softcap)) * softcap
    if mask is None and q.shape[2] == k.shape[2] and q.shape[2] > 1:
        mask = causal_mask(q.shape[2], k.shape[2], None, q.device)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(q.dtype) @ v
