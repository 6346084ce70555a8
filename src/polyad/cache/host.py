"""The bridge to transformers: a cache each of whose layers is held by a codec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import Cache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer


class Codec(Protocol):
    """Stores the keys and values of one layer's tokens, of shape (batch, heads, tokens, channels)."""

    @property
    def length(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def append(self, keys: Tensor, values: Tensor) -> None: ...
    def read(self) -> tuple[Tensor, Tensor]: ...
    def crop(self, length: int) -> None: ...
    def select(self, index: Tensor) -> None: ...


class CodecLayer(DynamicLayer):
    """One layer of a transformers ``Cache``, stored by the codec that ``make`` makes.

    Attention sees the tokens of the current call as they are and those before them as the codec gives them back.
    """

    def __init__(self, make: Callable[[], Codec]) -> None:
        super().__init__()
        self._make = make
        self.codec = make()

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Append the new tokens; returns keys and values of all."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True
        keys, values = key_states, value_states
        if self.codec.length:
            past = self.codec.read()
            keys, values = torch.cat([past[0], keys], -2), torch.cat([past[1], values], -2)
        self.codec.append(key_states, value_states)
        return keys, values

    def get_seq_length(self) -> int:
        return self.codec.length

    def crop(self, tokens_to_remove: int) -> None:
        """Drop the last ``-tokens_to_remove`` tokens; transformers gives a number that is not positive."""
        if tokens_to_remove > 0:
            raise ValueError(f"tokens_to_remove={tokens_to_remove} is positive; give minus the number to drop")
        self.codec.crop(max(0, self.codec.length + tokens_to_remove))

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.codec.length:
            batch = self.codec.read()[0].shape[0]
            self.codec.select(torch.arange(batch, device=self.device).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.codec.length:
            self.codec.select(indices.to(self.device))

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def reset(self) -> None:
        self.codec, self.is_initialized = self._make(), False

    def offload(self) -> None:
        raise NotImplementedError("a codec's storage cannot be offloaded; make the cache without offloading=True")


def cache_for(model: PreTrainedModel | PreTrainedConfig, make: Callable[[], Codec]) -> Cache:
    """A cache for ``model(..., past_key_values=cache)`` or ``model.generate``, with one codec a layer.

    Only layers with full attention can be held; others are refused by name.

    >>> from functools import partial
    >>> from transformers import LlamaConfig
    >>> from polyad.cache import Kivi
    >>> cache = cache_for(LlamaConfig(num_hidden_layers=2), partial(Kivi, bits=4))
    >>> len(cache.layers), cache.get_seq_length()
    (2, 0)
    """
    config = (model.config if isinstance(model, PreTrainedModel) else model).get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    other = sorted({kind for kind in kinds if kind != "full_attention"})
    if other or (getattr(config, "sliding_window", None) and getattr(config, "layer_types", None) is None):
        raise ValueError(
            f"{type(config).__name__} has layers of kind {', '.join(other) or 'sliding_attention'}; "
            "codecs hold full_attention only"
        )
    return Cache(layers=[CodecLayer(make) for _ in kinds])
