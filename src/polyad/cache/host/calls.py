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


def refuse_whole_again(model: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:  # noqa: ARG001 - a hook
    """Refuse to read a sequence from its start behind what the cache holds of it; a hook of the model.

    So does ``generate`` with ``use_cache=False``, which gives all tokens at each step, and their positions from 0.
    """
    cache = cache_of(kwargs.get("past_key_values"))
    if kwargs.get("use_cache") is not False or not hasattr(cache, "held"):
        return
    ids, mask, positions = (kwargs.get(name) for name in ("input_ids", "attention_mask", "position_ids"))
    ids = args[0] if ids is None and args else ids
    if ids is None or cache.get_seq_length() == 0:
        return
    short = getattr(mask, "ndim", 0) == 2 and mask.shape[1] < cache.get_seq_length() + ids.shape[1]
    if short or (positions is not None and int(positions.max()) < ids.shape[1]):
        raise ValueError(
            f"use_cache=False gives all {ids.shape[1]} tokens again at each step, and the cache given as "
            f"past_key_values holds {cache.get_seq_length()} of them; say use_cache=True, or give no cache"
        )


def watch_calls(model: nn.Module) -> None:
    """Have a model refuse such calls, once."""
    if refuse_whole_again not in model._forward_pre_hooks.values():
        model.register_forward_pre_hook(refuse_whole_again, with_kwargs=True)


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
