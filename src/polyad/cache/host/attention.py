"""Attention over what a layer of the cache holds, as an attention implementation of transformers."""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW = 8
"""Up to this many queries a row attend to the stored formats as they stand; more to their dense form."""
CHUNK = 4096
"""Tokens whose keys or values are formed at once where they must be."""


NAMED = re.compile(r"_attn_implementation\)?\s*(in|not in|==|!=)\s*[\[({]?\s*[\"'](eager[\"'],|sdpa)")
"""A modelling file that asks for an implementation by its name would not know polyad's."""


def install(model: Any) -> bool:
    """Let a transformers model attend to caches of this package; all others are attended to as before.

    False for a model whose attention cannot be chosen: it reads keys and values as tensors.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    before = model.config.get_text_config(decoder=True)._attn_implementation or "sdpa"
    if before.startswith("polyad_"):
        return True
    if before not in ("sdpa", "eager"):
        raise ValueError(
            f"the model attends with {before!r}; caches are read by 'sdpa' or 'eager': call "
            "model.set_attn_implementation('sdpa') first"
        )
    if not model._can_set_attn_implementation() or any(
        map(_asks_by_name, {type(m).__module__ for m in model.modules()})
    ):
        return False
    name = f"polyad_{before}"
    AttentionInterface.register(name, _sdpa if before == "sdpa" else _eager)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[before])
    model.set_attn_implementation(name)
    return model.config.get_text_config(decoder=True)._attn_implementation == name


@cache
def _asks_by_name(file: str) -> bool:
    """True if a modelling file of transformers tests for 'sdpa' by its name."""
    return file.startswith("transformers.models.") and NAMED.search(inspect.getsource(sys.modules[file])) is not None


def _sdpa(
    module: nn.Module, query: Tensor, key: Any, value: Any, attention_mask: Tensor | None = None, **more: Any
) -> Any:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if isinstance(key, Tensor):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)
    if more.get("output_attentions"):
        warnings.warn(
            "output_attentions=True gives nothing where the model attends with 'sdpa', which keeps no weights; call "
            "model.set_attn_implementation('eager') before the cache is made",
            stacklevel=2,
        )
    return key.attend(module, query, attention_mask, sdpa_attention_forward, more), None


def _eager(
    module: nn.Module, query: Tensor, key: Any, value: Any, attention_mask: Tensor | None = None, **more: Any
) -> Any:
    before = sys.modules[type(module).__module__].eager_attention_forward
    if isinstance(key, Tensor):
        return before(module, query, key, value, attention_mask, **more)
    weights: list[Any] = []

    def attend(*args: Any, **options: Any) -> tuple[Tensor, Any]:
        out, given_weights = before(*args, **options)
        weights.append(given_weights)
        return out, given_weights

    return key.attend(module, query, attention_mask, attend, more), weights[-1] if weights else None


def dense(
    module: nn.Module, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, before: Any, more: Any
) -> Tensor:
    """Attention with keys and values at hand, (batch, tokens, heads, channels): the model's own but in two cases.

    A single query reads the keys of its group without repeating them, and values of another width than the keys are
    padded, since torch's fused kernels want one width.
    """
    plain = mask is None and query.shape[-2] == 1 and before.__name__ == "sdpa_attention_forward"
    if plain and not more.get("dropout") and more.get("position_bias") is None:
        rows = query.reshape(*keys.shape[:2], -1, query.shape[-1])  # heads of a group lie side by side
        if keys.shape[-1] == values.shape[-1]:
            out = F.scaled_dot_product_attention(rows, keys, values, scale=more.get("scaling"))
        else:  # a row of scores is small: two products
            out = (rows @ keys.mT * more["scaling"]).softmax(-1) @ values
        return out.reshape(query.shape[0], 1, query.shape[1], -1)
    width = max(keys.shape[-1], values.shape[-1])
    wide = (F.pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x for x in (query, keys, values))
    return before(module, *wide, mask, **more)[0][..., : values.shape[-1]]


def over_pieces(
    query: Tensor,
    mask: Tensor | None,
    scaling: float,
    pieces: list[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]],
) -> Tensor:
    """Softmax attention over tokens that lie in several pieces; (batch, tokens, heads, channels).

    A piece gives its scores ``q Kᵀ`` and its share of the output ``p V``, for queries by key head,
    (batch, key heads, rows, channels). ``query`` is that, with a dimension of its own for the tokens:
    (batch, key heads, group, tokens, channels); the mask broadcasts to (batch, heads, tokens, all tokens).
    """
    batch, heads, group, tokens, width = query.shape
    rows = (query * scaling).reshape(batch, heads, group * tokens, width)
    parts = [score(rows) for score, _ in pieces]
    scores = torch.cat(parts, -1)
    if mask is not None:
        scores = _apply_mask(scores.unflatten(2, (group, tokens)), mask).flatten(2, 3)
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
    shares = weights.split_with_sizes([part.shape[-1] for part in parts], -1)
    out = pieces[0][1](shares[0])
    for share, (_, mix) in zip(shares[1:], pieces[1:], strict=True):
        out = out + mix(share)
    if tokens == 1:  # heads of a group lie side by side
        return out.reshape(batch, 1, heads * group, -1)
    return out.unflatten(2, (group, tokens)).flatten(1, 2).transpose(1, 2)


def _apply_mask(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores (batch, heads, group, tokens, all tokens) where the mask, by head or for all, leaves them."""
    shown = mask.unsqueeze(1) if mask.shape[1] == 1 else mask.unflatten(1, scores.shape[1:3])
    least = torch.finfo(scores.dtype).min
    return scores.masked_fill(~shown, least) if mask.dtype == torch.bool else scores + shown
