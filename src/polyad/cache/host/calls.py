"""Calls of a model's attention modules, as a cache is told of them."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn


def announce(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
    """Tell a cache that stores keys before rotation the positions of the call that begins; a hook of attention.

    It knows no cache and no model but those of the call, so that copies of both are served.
    """
    cache = kwargs.get("past_key_values", kwargs.get("layer_past"))  # as older models call it
    rotations = getattr(cache_of(cache), "rotations", None)
    rotation = (rotations or {}).get(module.layer_idx)  # pyright: ignore[reportArgumentType]
    if rotation is None:
        return
    if "position_embeddings" not in kwargs:
        kwargs = named_arguments(module, args, kwargs)
    rotation.see(kwargs.get("position_ids"), kwargs.get("position_embeddings"))


def listen(module: nn.Module) -> None:
    """Have an attention module announce its calls, once."""
    if announce not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(announce, with_kwargs=True)


def cache_of(cache: Any) -> Any:
    """The cache of a decoder's own tokens, out of a pair with that of the encoder's."""
    return getattr(cache, "self_attention_cache", cache)


def named_arguments(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of a module by their names, those behind ``**`` among them."""
    signature = inspect.signature(module.forward)
    named = dict(signature.bind_partial(*args, **kwargs).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= named.pop(parameter.name, {})
    return named
