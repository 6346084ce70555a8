"""Layers of a model that codecs hold, and their attention modules."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from polyad.cache.codec import Place


def layer_numbers(model: PreTrainedModel) -> list[int]:
    """The numbers of the layers that codecs hold: those whose tokens all see all before them."""
    layers = plain_layers(model.config.get_text_config(decoder=True))
    return [i for i, layer in enumerate(layers) if type(layer) is DynamicLayer]


def plain_layers(config: Any) -> list[Any]:
    """The layers of transformers' own cache of a model."""
    return list(DynamicCache(config=config).layers) or [DynamicLayer() for _ in range(config.num_hidden_layers)]


def attentions(model: nn.Module) -> dict[int, nn.Module]:
    """The decoder's attention modules by the number under which they update a cache."""
    by_number: dict[int, nn.Module] = {}
    for module in model.modules():
        number = getattr(module, "layer_idx", None)
        if isinstance(number, int) and hasattr(module, "is_causal") and number not in by_number:
            by_number[number] = module
    return by_number


def place(config: Any, layer: int, module: nn.Module, seen: dict[str, Tensor] | None) -> Place:
    """The ``Place`` of a layer, as its codec sees it."""
    heads = config.num_attention_heads
    key_heads = getattr(module, "key_heads", None) or getattr(config, "num_key_value_heads", None)
    return Place(layer, module, heads, key_heads or heads, seen or {})
