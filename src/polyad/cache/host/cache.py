"""A cache for transformers' decoders whose layers are held by codecs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from polyad.cache.codec import Codec, Make, Place, arguments
from polyad.cache.eviction import Eviction
from polyad.cache.host.attention import install
from polyad.cache.host.eviction_layer import EvictingLayer
from polyad.cache.host.layer import HeldLayer
from polyad.cache.host.model_layers import attentions, layer_numbers, place, plain_layers
from polyad.cache.host.rotation import Rotation

WINDOW = 128


class HeldCache(Cache):
    """A transformers cache that says what it holds: ``nbytes`` its sequences, ``shared_nbytes`` all of a model."""

    def __init__(self, layers: list[Any], rotation: Rotation | None) -> None:
        super().__init__(layers=layers)
        self.rotation = rotation

    @property
    def held(self) -> list[HeldLayer]:
        return [layer for layer in self.layers if isinstance(layer, HeldLayer)]

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales, latents, bases of these sequences, exact tokens, positions, and room for more."""
        stored: dict[int, int] = {}
        for layer in self.held:
            stored |= layer.stored.storages(() if layer.codec is None else layer.codec.bases)
            stored |= {t.data_ptr(): t.nbytes for t in layer.state}
        exact = sum(part.nbytes for layer in self.held for part in (layer.first, layer.recent))
        others = [
            layer for layer in self.layers if isinstance(layer, DynamicLayer) and not isinstance(layer, HeldLayer)
        ]
        plain = sum(t.numel() * t.element_size() for layer in others if layer.is_initialized for t in _tensors(layer))
        return sum(stored.values()) + exact + plain + (0 if self.rotation is None else self.rotation.nbytes)

    @property
    def shared_nbytes(self) -> int:
        """Bytes of calibrated bases and tables of rotations, held once for a model."""
        codecs = [layer.codec for layer in self.held if layer.codec is not None]
        bases = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for c in codecs for t in c.bases}
        return sum(bases.values()) + (0 if self.rotation is None else self.rotation.shared_nbytes)

    def adopt(self, other: HeldCache) -> HeldCache:
        """Encode the tokens of an exact cache of ``recording_cache``, as if the model had run on them; self."""
        if self.rotation is not None:
            if other.rotation is None:
                raise ValueError("the exact cache knows no positions; make it with recording_cache(model)")
            self.rotation.adopt(other.rotation)
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            if isinstance(mine, HeldLayer) and isinstance(theirs, HeldLayer):
                mine.adopt(theirs)
            elif isinstance(mine, DynamicLayer) and isinstance(theirs, DynamicLayer):
                mine.update(*_tensors(theirs))
            else:
                raise ValueError(f"a {type(theirs).__name__} cannot be adopted; run the model on the prompt instead")
        return self

    def crop(self, tokens_to_remove: int) -> None:
        super().crop(tokens_to_remove)
        if self.rotation is not None:
            self.rotation.crop(self.get_seq_length())

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        if self.rotation is not None:
            self.rotation.select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        if self.rotation is not None and self.rotation.positions is not None:
            self.rotation.positions = self.rotation.positions.repeat_interleave(repeats, 0)

    def reorder_cache(self, beam_idx: Any) -> None:
        super().reorder_cache(beam_idx)
        if self.rotation is not None:
            self.rotation.select(beam_idx)

    def reset(self) -> None:
        raise ValueError("a cache of codecs cannot be reset, since they remember the sequence; make a new one")


def cache_for(
    model: PreTrainedModel,
    make: Make | None = None,
    *,
    window: int = WINDOW,
    sinks: int = 0,
    dtype: torch.dtype | None = None,
    seen: list[dict[str, Tensor]] | None = None,
) -> HeldCache:
    """A cache for ``model(..., past_key_values=cache)`` or ``model.generate``, of one sequence or one batch.

    ``make`` makes a layer's codec from its ``Place``; None keeps all tokens exact, in preallocated buffers. The last
    ``window`` tokens stay exact, and the first ``sinks``, to which trained models turn out to attend most: a few are
    worth many bits of all others (in a batch padded on the left they are padding). ``dtype`` is that of exact tokens,
    None the model's own. ``seen`` is what ``observe`` collected for a codec that needs calibration, a mapping
    for each layer. Layers with a sliding window, or without keys, are held as transformers holds them.

    The first call chooses an attention implementation for the model that can read such caches; with any other cache
    it does what the model did before.

    >>> from functools import partial
    >>> import torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from polyad.cache import Kivi
    >>> sizes = {"hidden_size": 32, "intermediate_size": 8, "num_attention_heads": 2, "vocab_size": 9}
    >>> model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, **sizes))
    >>> cache = cache_for(model, partial(Kivi, bits=4, group=16), window=16)
    >>> made = model(torch.ones(1, 64, dtype=torch.int64), past_key_values=cache)
    >>> cache.get_seq_length(), cache.layers[0].stored.length
    (64, 48)
    """
    for name, value in (("window", window), ("sinks", sinks)):
        if value < 0:
            raise ValueError(f"{name}={value} must be at least 0")
    config: Any = model.config.get_text_config(decoder=True)
    layers = plain_layers(config)
    modules = attentions(model)
    numbers = layer_numbers(model)
    absent = [i for i in numbers if i not in modules]
    if absent:
        raise ValueError(
            f"layer {absent[0]} of {type(model).__name__} has no attention module that polyad understands; use "
            "transformers' own cache"
        )
    if not numbers:
        raise ValueError(
            f"every layer of {type(model).__name__} has a sliding window or no keys at all, which transformers' own "
            "cache holds in little memory already; there is nothing to compress"
        )
    if seen is not None and len(seen) != len(numbers):
        raise ValueError(
            f"the calibration is of {len(seen)} layers and {type(model).__name__} has {len(numbers)} to hold; "
            "calibrate this model"
        )
    install(model)
    rotation = _rotation(make, modules[numbers[0]])
    codecs = _codecs(
        make, [place(config, i, modules[i], None if seen is None else seen[n]) for n, i in enumerate(numbers)]
    )
    settings: Any = (window, rotation, sinks, dtype)
    new_layers = [
        EvictingLayer(codec, *settings) if isinstance(codec, Eviction) else HeldLayer(codec, *settings)
        for codec in codecs
    ]
    for i, layer in zip(numbers, new_layers, strict=True):
        layer.neighbours = (
            [other for other in new_layers if other.codec is layer.codec] if layer.codec is not None else (layer,)
        )
        layers[i] = layer
    return HeldCache(layers, rotation)


def recording_cache(model: PreTrainedModel) -> HeldCache:
    """An exact cache that remembers what any other of the model needs to ``adopt`` its tokens."""
    cache = cache_for(model)
    for layer in cache.held:
        layer.remembers = True
    modules = attentions(model)
    with suppress(ValueError):  # a model without the usual rotation: no codec will ask for it
        cache.rotation = Rotation(modules[min(modules)])
    return cache


def _codecs(make: Make | None, places: list[Place]) -> list[Codec | None]:
    if make is None:
        return [None] * len(places)
    together = arguments(make).layers if isinstance(arguments(make), type) else 1
    codecs: list[Codec | None] = []
    for start in range(0, len(places), together):
        group = places[start : start + together]
        codecs += [make(group[0])] * len(group)
    return codecs


def _rotation(make: Make | None, attention: nn.Module) -> Rotation | None:
    before: Callable[..., bool] = lambda kind: bool(getattr(kind, "before_rotation", False))  # noqa: E731
    return Rotation(attention) if make is not None and before(arguments(make)) else None


def _tensors(layer: Any) -> list[Tensor]:
    return [t for t in (layer.keys, layer.values) if isinstance(t, Tensor)]
