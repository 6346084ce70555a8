"""Checks of a layer of tokens: pieces with a cache, an order of time, and masks."""

from __future__ import annotations

import torch
from transformers import DynamicCache

from polyad._card import Card
from polyad.cache import HeldCache
from polyad.cache.host.layer import HeldLayer
from polyad.testing.attention._subject import PIECES, ROUNDED, assert_near, call, input_of, layer_of, takes


def pieces(card: Card) -> None:
    """Fed in pieces with a cache, it gives what it gives at once: transformers' cache, and polyad's exact one."""
    if not takes(card, "past_key_values"):
        return
    layer, x = layer_of(card), input_of(card)
    expected = call(card, layer, x)
    for cache in (DynamicCache(), HeldCache([HeldLayer(None, 0, None)], None)):
        first, parts = 0, []
        for piece in x.split(list(PIECES), 1):
            parts.append(call(card, layer, piece, first=first, past_key_values=cache))
            first += piece.shape[1]
        assert_near(torch.cat(parts, 1), expected, ROUNDED, f"{card.name} in pieces with a {type(cache).__name__}")


def causality(card: Card) -> None:
    """Later tokens change nothing before them, and every token changes what follows it."""
    layer, x = layer_of(card), input_of(card)
    if not (takes(card, "past_key_values") or getattr(layer, "is_causal", False)):
        return
    right = call(card, layer, x)
    for at in (1, x.shape[1] // 2, x.shape[1] - 1):
        changed = torch.cat([x[:, :at], 3 - x[:, at:]], 1)
        out = call(card, layer, changed)
        assert_near(out[:, :at], right[:, :at], ROUNDED, f"{card.name} before and after a change of later tokens")
        changed = torch.cat([x[:, : at - 1], 3 - x[:, at - 1 : at], x[:, at:]], 1)
        sees = bool((call(card, layer, changed)[:, at:] != right[:, at:]).any(-1).all())
        assert sees, f"{card.name} does not see token {at - 1} from those that follow"


def masks(card: Card) -> None:
    """Tokens that a mask hides are not read; masks of bools and of numbers do the same, a causal one nothing."""
    if not takes(card, "attention_mask"):
        return
    layer, x = layer_of(card), input_of(card)
    batch, tokens, hidden = x.shape[0], x.shape[1], 4
    shown = torch.ones(batch, 1, tokens, tokens, dtype=torch.bool).tril()
    assert_near(
        call(card, layer, x, attention_mask=shown), call(card, layer, x), ROUNDED, f"{card.name} by a causal mask"
    )
    shown[0, ..., :hidden] = False
    added = torch.zeros(shown.shape, dtype=x.dtype).masked_fill(~shown, torch.finfo(x.dtype).min)
    right = call(card, layer, x, attention_mask=shown)[:, hidden:]
    out = call(card, layer, x, attention_mask=added)[:, hidden:]
    assert_near(out, right, ROUNDED, f"{card.name} by a mask that is added")
    other = x.clone()
    other[0, :hidden] *= 100
    out = call(card, layer, other, attention_mask=shown)[:, hidden:]
    assert_near(out, right, ROUNDED, f"{card.name} of other numbers under a mask")
    assert not torch.equal(right[0], call(card, layer, x)[0, hidden:]), f"{card.name} ignores its mask"
