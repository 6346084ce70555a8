"""Rotation of pairs by position, and the mask of later tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad.cache.host.attention import FEW


def tables(first: int, tokens: int, width: int, *, theta: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines (1, tokens, width) of positions from ``first`` on; pair i is columns i and i + width / 2."""
    frequencies = theta ** (-torch.arange(0, width, 2) / width)
    angles = torch.arange(first, first + tokens)[:, None] * frequencies
    both = torch.cat((angles, angles), -1)[None]
    return both.cos(), both.sin()


def select_pairs(table: Tensor, pairs: Tensor) -> Tensor:
    """Select pairs of cosines or sines (batch, tokens, table): (batch, 1, tokens, 2 pairs)."""
    return table[..., pairs].repeat(1, 1, 2).unsqueeze(1)


def causal(mask: Tensor | None, query: Tensor, keys: Tensor) -> Tensor | None:
    """The mask (batch, 1, tokens, length), built where none was given and torch's own causal one would not do."""
    tokens, length = query.shape[-2], keys.shape[-2]
    if mask is None and tokens > 1 and (tokens <= FEW or tokens < length):
        every = torch.ones(tokens, length, dtype=torch.bool, device=query.device)
        return every.tril(length - tokens)[None, None]
    if mask is not None and mask.ndim != 4:
        raise ValueError(
            f"attention_mask has shape {tuple(mask.shape)}, not (batch, 1, tokens, all tokens); choose another "
            "attention implementation: model.set_attn_implementation('sdpa')"
        )
    return None if mask is None else mask[..., :length]
