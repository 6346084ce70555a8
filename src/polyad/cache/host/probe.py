"""The use that a model makes of its cache, found out by a trial."""

from __future__ import annotations

import weakref
from typing import Any

from torch import nn

from polyad.cache.host.attention import install
from polyad.cache.host.model_layers import Use, attentions, layer_numbers, place, takes_caches
from polyad.cache.host.trial import Trial

_KNOWN: weakref.WeakKeyDictionary[nn.Module, tuple[Any, dict[int, Use]]] = weakref.WeakKeyDictionary()


def uses_of_cache(model: Any) -> dict[int, Use]:
    """The use that every layer that codecs can hold makes of its cache, by its number.

    The model's decoder runs on four tokens, once. Where it asks for other inputs than tokens, its modules are taken
    to be what their attributes say. Raises for a model that takes no cache but one of its own kind.
    """
    if not takes_caches(model):
        raise ValueError(
            f"{type(model).__name__} takes no cache but one of its own kind, so that none can be given to it; leave "
            "past_key_values out"
        )
    if getattr(model.config.get_text_config(decoder=True), "cross_attention_layers", None):
        raise ValueError(
            f"{type(model).__name__} keeps what its layers see of pictures in the cache and reads it there, which no "
            "codec gives back; use transformers' own cache"
        )
    readable, modules = install(model), attentions(model)
    signature = readable, *(id(module) for module in modules.values())
    if model not in _KNOWN or _KNOWN[model][0] != signature:
        _KNOWN[model] = signature, _try(model, readable) or _guess(model, readable)
    return _KNOWN[model][1]


def _guess(model: Any, readable: bool) -> dict[int, Use]:
    config, modules = model.config.get_text_config(decoder=True), attentions(model)
    places = {i: place(config, i, modules[i], None) for i in layer_numbers(model) if i in modules}
    return {i: Use(at.module, at.key_heads, readable, True, min(places)) for i, at in places.items()}


def _try(model: Any, readable: bool) -> dict[int, Use]:
    """The uses seen on a few tokens; none where the model does not take them."""
    numbers = layer_numbers(model)
    indirect: set[int] = set() if readable else set(numbers)
    kinds = {i: type(module) for i, module in attentions(model).items()}
    while numbers:
        trial = Trial(model, numbers, indirect)
        try:
            trial.run(model)
            failed = {i for i, layer in trial.tried.items() if layer.is_initialized and not layer.is_direct()}
            failed -= indirect
            if not failed:
                return trial.uses()
        except Exception:  # whatever a model raises that finds no tensors in a cache
            failed = {i for i in [trial.latest] if i is not None} - indirect
            if not failed:
                return {}
        like = {kinds.get(i) for i in failed}
        indirect |= failed | {i for i in numbers if i in kinds and kinds[i] in like}
    return {}
