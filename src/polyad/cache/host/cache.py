"""A cache for transformers' decoders whose layers are held by codecs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from polyad import _check
from polyad._types import check_type
from polyad.cache.codec import Codec, Make, Place, arguments
from polyad.cache.eviction import Eviction
from polyad.cache.host.calls import cache_of, listen, watch_calls
from polyad.cache.host.eviction_layer import EvictingLayer
from polyad.cache.host.held_cache import HeldCache, HeldPair
from polyad.cache.host.layer import HeldLayer
from polyad.cache.host.model_layers import Use, place, plain_layers
from polyad.cache.host.probe import uses_of_cache
from polyad.cache.host.rotation import Rotation
from polyad.cache.host.statistics_check import refuse_damaged_statistics

WINDOW = 128


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
    for each layer. Layers with a sliding window, or without keys, are held as transformers holds them, and so are
    the keys that a decoder makes of its encoder's output.

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
    check_type("model", model, PreTrainedModel, "give the model itself, as polyad.load returns it")
    _check_counts(window=window, sinks=sinks)
    watch_calls(model)
    uses, layers = uses_of_cache(model), plain_layers(model)
    if make is not None and not uses:
        warnings.warn(
            f"every layer of {type(model).__name__} has a sliding window or no keys at all, which transformers' own "
            "cache holds in little memory already: its cache is the plain one",
            stacklevel=2,
        )
    before = make is not None and bool(getattr(arguments(make), "before_rotation", False))
    rotations = rotations_of(uses) if before else {}
    config: Any = model.config.get_text_config(decoder=True)
    statistics = _statistics(model, uses, seen)
    places = [
        place(config, i, use.module, layer, use.heads)
        for (i, use), layer in zip(uses.items(), statistics, strict=True)
    ]
    _hold(layers, uses, _codecs(make, places), rotations, (window, sinks, dtype))
    cache = HeldCache(layers, rotations)
    return HeldPair(cache, DynamicCache()) if model.config.is_encoder_decoder else cache


def _hold(
    layers: Any, uses: Mapping[int, Any], codecs: Sequence[Any], rotations: Any, settings: tuple[Any, Any, Any]
) -> None:
    """Put a layer of polyad's in the place of each plain one that attention uses."""
    window, sinks, dtype = settings
    new_layers: list[HeldLayer] = []
    for (number, use), codec in zip(uses.items(), codecs, strict=True):
        if codec is not None and codec.reads_queries:
            refuse_indirect(number, use, repr(codec))
        how: Any = (window, rotations.get(use.table) if use.rotated is not False else None, sinks, dtype)
        layer = EvictingLayer(codec, *how) if isinstance(codec, Eviction) else HeldLayer(codec, *how)
        layer.direct = use.direct
        layers[number] = layer
        new_layers.append(layer)
    for layer in new_layers:
        layer.neighbours = [x for x in new_layers if x.codec is layer.codec] if layer.codec is not None else (layer,)


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        check_type(name, value, int, "give a number of tokens")
        _check.at_least(name, value, 0)


def _statistics(
    model: PreTrainedModel, uses: Mapping[int, Any], seen: list[dict[str, Tensor]] | None
) -> Sequence[dict[str, Tensor] | None]:
    """The calibration of each layer, checked; None for each where there is none."""
    if seen is None:
        return [None] * len(uses)
    if len(seen) != len(uses):
        raise ValueError(
            f"the calibration is of {len(seen)} layers and {type(model).__name__} has {len(uses)} to hold; "
            "calibrate this model"
        )
    for (number, use), layer in zip(uses.items(), seen, strict=True):
        refuse_damaged_statistics(number, layer, use.heads)
    return seen


def recording_cache(model: PreTrainedModel) -> HeldCache:
    """An exact cache that remembers what any other of the model needs to ``adopt`` its tokens."""
    cache = cache_for(model)
    for layer in cache.held:
        layer.remembers = True
    with suppress(ValueError):  # a model without the usual rotation: no codec will ask for it
        cache_of(cache).rotations = rotations_of(uses_of_cache(model))
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


def refuse_indirect(number: int, use: Use, codec: str) -> None:
    """Refuse a layer that attends with other keys than the cache's, for a codec that compares them with queries."""
    if not use.direct:
        raise ValueError(
            f"{type(use.module).__name__} of layer {number} attends with keys that it makes from those of the cache, "
            f"so that {codec} cannot compare them with queries; choose a codec that does not, such as kivi"
        )


def rotations_of(uses: Mapping[int, Use]) -> dict[int, Rotation]:
    """The rotations of a model's keys, by the layer that announces the positions; refused where one is not known."""
    rotations: dict[int, Rotation] = {}
    for number, use in uses.items():
        if use.rotated is None:
            raise ValueError(
                f"the attention of layer {number} does not rotate its keys in the usual way; choose a codec that "
                "stores keys as they are, such as kivi"
            )
        if use.rotated and use.table not in rotations:
            rotations[use.table] = Rotation(use.module)
    for number in rotations:
        listen(uses[number].module)
    return rotations
