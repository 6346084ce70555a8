"""Attention to keys and values that lie in a cache of polyad's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from polyad.cache.host.held_cache import HeldCache
from polyad.cache.host.layer import HeldLayer
from polyad.decode.outline import Attention, NoLoopError, Outline
from polyad.decode.steps.attend import attend_masked


def refuse_cache(cache: HeldCache, outline: Outline) -> None:
    """Refuse a cache that the loop cannot fill as the model's own forward pass does."""
    if cache.get_seq_length():
        raise NoLoopError("the cache holds tokens already, behind which the model's own attention goes on")
    for number, (layer, read) in enumerate(zip(cache.layers, (x.attention for x in outline.layers), strict=True)):
        if read.softcap is not None or (isinstance(layer, HeldLayer) and not layer.direct):
            raise NoLoopError(f"layer {number} attends to what its codec holds in a way of its own")
        if number in cache.rotations and (read.rotary is None or read.rotary.stated is None):
            raise NoLoopError(
                f"the rotation of layer {number}, which its codec undoes, is not that of the model alone"
            )


def announce_positions(cache: HeldCache, outline: Outline, places: Tensor, dtype: torch.dtype) -> None:
    """Tell the rotations of a cache the positions (batch or 1, tokens) of the call that begins."""
    tables: dict[Any, tuple[Tensor, ...]] = {}  # layers share theirs
    for number, rotation in cache.rotations.items():
        rotary = outline.layers[number].attention.rotary
        assert rotary is not None
        assert rotary.stated is not None
        if rotary.name not in tables:
            pair = rotary.stated(places.flatten())
            tables[rotary.name] = tuple(table.to(dtype).unflatten(0, places.shape) for table in pair)
        rotation.see(places, tables[rotary.name])


def attend_held(layer: Any, read: Attention, queries: Tensor, keys: Tensor, values: Tensor, mask: Any) -> Tensor:
    """Attention (batch, tokens, heads, channels) of queries (batch, heads, tokens, channels) to all that a layer of
    a cache holds, behind new keys and values (batch, key heads, tokens, channels)."""
    stored, restored = layer.update(keys, values)
    if not isinstance(stored, Tensor):
        more = {"scaling": read.scale}
        return stored.attend(read.module, queries, mask, sdpa_attention_forward, more)
    mask = None if mask is None else mask[..., -stored.shape[2] :]
    if mask is None and queries.shape[2] == 1:
        mask = torch.ones(1, 1, 1, stored.shape[2], dtype=torch.bool, device=queries.device)
    return attend_masked(queries, stored, restored, read.scale, read.softcap, mask).transpose(1, 2)
