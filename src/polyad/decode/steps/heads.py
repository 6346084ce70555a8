"""Rotation and norms of the heads of queries and keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from polyad.decode.outline import Attention
from polyad.decode.steps.norm import norm_function


def swap_function(read: Attention) -> Callable[[Tensor], Tensor]:
    """The function that puts each channel in the place of its partner."""
    assert read.rotary is not None
    partner = read.rotary.partner
    half = read.width // 2
    if torch.equal(partner.cpu(), torch.arange(read.width).roll(half)):
        return lambda x: x.roll(half, -1)
    return lambda x: x.index_select(-1, partner)


def head_norms(read: Attention, dtype: torch.dtype) -> Callable[[Tensor], Tensor] | None:
    """The norms of queries and keys (batch, tokens, heads + key heads, width), as one call where they are alike."""
    pair, counts = (read.query_norm, read.key_norm), (read.heads, read.key_heads)
    if pair == (None, None):
        return None
    first, second = pair
    alike = first is not None and second is not None and (first.kind, first.eps) == (second.kind, second.eps)
    if first is not None and second is not None and alike and not read.flat_norms:
        biases = (first.bias, second.bias)
        if all(n.weight is not None for n in (first, second)) and biases == (None, None):
            weights = [n.weight.expand(c, read.width) for n, c in zip((first, second), counts, strict=True)]  # pyright: ignore
            return norm_function(dataclasses.replace(first, weight=torch.cat(weights)), dtype)
    functions = [None if norm is None else norm_function(norm, dtype) for norm in pair]

    def apply(x: Tensor) -> Tensor:
        parts = x.split(counts, 2)
        return torch.cat([_normalize(f, part, read.flat_norms) for f, part in zip(functions, parts, strict=True)], 2)

    return apply


def _normalize(function: Callable[[Tensor], Tensor] | None, x: Tensor, flat: bool) -> Tensor:
    if function is None:
        return x
    return function(x.flatten(2)).view(x.shape) if flat else function(x)
