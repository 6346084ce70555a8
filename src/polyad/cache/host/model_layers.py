"""Layers of a model that codecs hold, and their attention modules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from polyad.cache.codec import Place


@dataclass(frozen=True)
class Use:
    """The use that a layer makes of its cache: ``module`` gives it ``heads`` heads of keys and values.

    ``direct`` where what the cache gives back goes to the attention function as it is. ``rotated`` says whether keys
    have been rotated, and is None where that could not be told. Layers of one ``table``, the number of the first of
    them, are given the same cosines and sines.
    """

    module: nn.Module
    heads: int
    direct: bool
    rotated: bool | None
    table: int


def takes_caches(model: Any) -> bool:
    """True for a model that works with caches of transformers, False for one that makes its own kind of state."""
    said = getattr(model, "_supports_default_dynamic_cache", None)
    return said is None or bool(said())


def layer_numbers(model: PreTrainedModel) -> list[int]:
    """The numbers of the layers that codecs hold: those whose tokens all see all before them."""
    return [i for i, layer in enumerate(plain_layers(model)) if type(layer) is DynamicLayer]


def plain_layers(model: PreTrainedModel) -> list[Any]:
    """The layers of transformers' own cache of a model, or of its decoder."""
    config: Any = model.config.get_text_config(decoder=True)
    layers = list(DynamicCache(config=config).layers)
    count = config.num_hidden_layers
    if model.config.is_encoder_decoder:  # their configurations may count the encoder's layers
        count = max(attentions(model), default=count - 1) + 1
    return layers + [DynamicLayer() for _ in range(count - len(layers))]


def attentions(model: nn.Module) -> dict[int, nn.Module]:
    """The decoder's attention modules by the number under which they update a cache."""
    by_number: dict[int, nn.Module] = {}
    paired = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    for module in (model.get_decoder() if paired else model).modules():  # pyright: ignore[reportCallIssue]
        number = getattr(module, "layer_idx", None)
        if isinstance(number, int) and hasattr(module, "is_causal") and number not in by_number:
            by_number[number] = module
    return by_number


def place(
    config: Any, layer: int, module: nn.Module, seen: dict[str, Tensor] | None, key_heads: int | None = None
) -> Place:
    """The ``Place`` of a layer, as its codec sees it."""
    heads = config.num_attention_heads
    stated = getattr(module, "key_heads", None) or getattr(config, "num_key_value_heads", None)
    return Place(layer, module, heads, key_heads or stated or heads, seen or {})
