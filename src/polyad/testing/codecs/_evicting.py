"""Checks of a codec that lets tokens go: those that stay are exact, in their places, and as many as was asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from polyad._card import Card
from polyad.cache import Eviction, HeldCache, cache_for
from polyad.cache.host.eviction_layer import EvictingLayer
from polyad.cache.host.model_layers import attentions
from polyad.testing._contract import normal
from polyad.testing.codecs._decoding import CHUNKS
from polyad.testing.codecs._sizes import SIZES
from polyad.testing.codecs._subject import (
    HEADS,
    KEY_HEADS,
    LAYERS,
    PADDING,
    PROMPT,
    ROUNDED,
    TOKENS,
    WIDTH,
    cache_of,
    codec_of,
    decoder,
    is_eviction,
    logits,
    settings,
    tokens,
)

AT_LEAST = 0.75
"""The part of its budget that a codec uses at the least."""


def kept_tokens(card: Card) -> None:
    """Tokens that stay are exact and in order, at most the share ``keep`` of those that left, and nearly as many.
    Where no share is asked for, they are as many and the same however the tokens came."""
    if not is_eviction(card):
        return
    counts: dict[float | None, int] = {}
    for keep in SIZES["keep"] if "keep" in card.example else (None,):
        options = dict(card.example) | ({} if keep is None else {"keep": keep})
        kept: list[Tensor] = []
        for steps in ((), CHUNKS) if keep else ((), CHUNKS, (1,) * PROMPT):
            cache, exact, ids = cache_of(card, options), cache_for(decoder()), tokens(2, PROMPT)
            logits(decoder(), ids, cache, steps)
            logits(decoder(), ids, exact)
            for layer, plain in zip(_layers(cache)[: 1 if steps else None], exact.held, strict=False):
                _assert_exact(card, layer, plain.read())  # in pieces, later layers read what the first let go
            counts[keep] = _assert_budget(card, _layers(cache), keep)
            kept += [layer.kept for layer in _layers(cache)[:1] if layer.kept is not None]
        same = keep is not None or all(torch.equal(kept[0], other) for other in kept)
        assert same, f"{card.name} keeps other tokens of those that come one by one: {[t.tolist() for t in kept]}"
    rising = list(counts.values())
    assert rising == sorted(rising), f"{card.name} keeps fewer tokens with a larger share: {counts}"


def _layers(cache: HeldCache) -> list[EvictingLayer]:
    return [layer for layer in cache.held if isinstance(layer, EvictingLayer)]


def _assert_exact(card: Card, layer: EvictingLayer, exact: tuple[Tensor, Tensor]) -> None:
    index = _held_places(layer)
    assert bool((index.diff(dim=-1) > 0).all()), f"the tokens that {card.name} keeps do not rise: {index.tolist()}"
    inside = bool((index >= 0).all() and (index < PROMPT).all())
    assert inside, f"{card.name} keeps tokens that are not there: {index.tolist()}"
    for name, stored, whole in zip(("keys", "values"), layer.read(), exact, strict=True):
        expected = whole.gather(2, index.unsqueeze(-1).expand(-1, -1, -1, whole.shape[-1]))
        assert stored.shape == expected.shape, f"{card.name} holds {name} of shape {tuple(stored.shape)}"
        same = torch.allclose(stored, expected, rtol=0, atol=ROUNDED)
        assert same, f"{name} that {card.name} keeps are not those of their tokens"


def _held_places(layer: EvictingLayer) -> Tensor:
    """The numbers of all tokens that a layer holds, (batch, heads, tokens)."""
    recent = torch.arange(layer.left, layer.get_seq_length())
    if layer.kept is None:
        return recent.expand(2, KEY_HEADS, -1)
    return torch.cat([layer.kept.long(), recent.expand(*layer.kept.shape[:2], -1)], -1)


def _assert_budget(card: Card, layers: list[EvictingLayer], keep: float | None) -> int:
    stored, left = sum(layer.stored.length for layer in layers), sum(layer.left for layer in layers)
    assert 0 < stored <= left, f"{card.name} stores {stored} of {left} tokens"
    if keep is not None:
        assert stored <= keep * left + 1e-9, f"{card.name} stores {stored} of {left} tokens with keep={keep}"
        assert stored >= AT_LEAST * keep * left, f"{card.name} stores only {stored} of {left} tokens with keep={keep}"
    return stored


def later_tokens(card: Card) -> None:
    """Tokens that follow see those that stayed, head by head, at their own positions, and no other; no padding."""
    if not is_eviction(card):
        return
    model, ids = decoder(), tokens(2, PROMPT + 24)
    cache, plain = cache_of(card, card.example), cache_for(model)
    mask = torch.ones_like(ids)
    mask[0, : TOKENS - 6] = 0  # so much that some of it must stay
    for one in (cache, plain):
        logits(model, ids[:, :PROMPT], one, mask=mask[:, :PROMPT])
    for piece in ids[:, PROMPT:].split([1, 5, 12, 6], 1):
        shown = mask[:, : cache.get_seq_length() + piece.shape[1]]
        with _mask_layers(model, [_mask(layer, shown) for layer in _layers(cache)]):
            expected = logits(model, piece, plain)
        said = logits(model, piece, cache, mask=shown)
        off = float((said - expected).abs().max())
        assert off < ROUNDED, f"tokens that follow see something else than what {card.name} kept, by {off:.3g}"


def _mask(layer: EvictingLayer, shown: Tensor) -> Tensor:
    """The mask of tokens that each new one may see, (batch, heads, new tokens, all tokens), without padding."""
    length, total = layer.get_seq_length(), shown.shape[1]
    index = _held_places(layer)
    visible = torch.zeros(*index.shape[:2], total, dtype=torch.bool).scatter_(-1, index, True)
    visible[..., length:] = True
    visible &= shown.bool().unsqueeze(1)
    causal = torch.ones(total - length, total, dtype=torch.bool).tril(length)
    return visible.repeat_interleave(HEADS // KEY_HEADS, 1).unsqueeze(2) & causal


@contextlib.contextmanager
def _mask_layers(model: Any, masks: list[Tensor]) -> Iterator[None]:
    """Each layer's attention with a mask of its own."""
    handles = []
    for number, module in attentions(model).items():

        def put(_module: Any, args: Any, kwargs: Any, number: int = number) -> Any:
            return args, {**kwargs, "attention_mask": masks[number]}

        handles.append(module.register_forward_pre_hook(put, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def left_padding(card: Card) -> None:
    """Padding on the left goes before any token does."""
    if not is_eviction(card):
        return
    ids = tokens(2, PROMPT)
    mask = torch.ones_like(ids)
    mask[0, :PADDING] = 0
    cache = cache_of(card, card.example)
    logits(decoder(), ids, cache, mask=mask)
    for layer in _layers(cache):
        if layer.kept is not None and layer.stored.length <= layer.left - PADDING:
            first = layer.kept[0]
            assert bool((first >= PADDING).all()), f"{card.name} keeps padding: {first.tolist()}"


def choices(card: Card) -> None:
    """``choose`` gives rising places, and for rows or heads in another order those of the tokens they were."""
    if not is_eviction(card):
        return
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "rows": lambda t: t[torch.tensor([2, 0, 1])], "heads": lambda t: t.flip(1),
    }  # fmt: skip
    for setting, options in settings(card).items():
        right = _choose(card, options, lambda t: t)
        for what, change in changes.items():
            indices = _choose(card, options, change)
            same = all(torch.equal(one, change(other)) for one, other in zip(indices, right, strict=True))
            assert same, f"{card.name} chooses other tokens of {what} in another order ({setting})"


def _choose(card: Card, options: dict[str, Any], change: Callable[[Tensor], Tensor]) -> list[Tensor]:
    codec = codec_of(card, options)
    assert isinstance(codec, Eviction)
    layers = min(codec.layers, LAYERS)
    sides = [change(normal(3, KEY_HEADS, TOKENS, WIDTH, seed=seed)) for seed in range(2 * layers)]
    scores = [change(normal(3, KEY_HEADS, TOKENS, seed=90 + i).exp()) for i in range(layers)]
    indices = codec.choose(list(zip(sides[::2], sides[1::2], strict=True)), scores, 0, [0] * layers)
    assert len(indices) == layers, f"{card.name} chooses for {len(indices)} layers of {layers}"
    for index in indices:
        assert index.dtype == torch.int64, f"{card.name} chooses places of {index.dtype}"
        assert index.shape[:2] == (3, KEY_HEADS), f"{card.name} chooses places of shape {tuple(index.shape)}"
        rising = bool((index.diff(dim=-1) > 0).all() and (index >= 0).all() and (index < TOKENS).all())
        assert rising, f"{card.name} chooses places that do not rise or are not there: {index.tolist()}"
    return indices
