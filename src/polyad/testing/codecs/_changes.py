"""Checks of a cache that is cut, whose batch is reordered, and that takes over the tokens of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from polyad._card import Card
from polyad.cache import HeldCache, recording_cache
from polyad.testing._contract import relative_error
from polyad.testing.codecs._subject import (
    NEAR,
    PROMPT,
    ROUNDED,
    cache_of,
    decoder,
    is_eviction,
    logits,
    settings,
    tokens,
)

SELECTIONS: dict[str, tuple[Callable[[HeldCache], None], list[int]]] = {
    "reorder_cache": (lambda cache: cache.reorder_cache(torch.tensor([2, 0, 1])), [2, 0, 1]),
    "batch_select_indices": (lambda cache: cache.batch_select_indices(torch.tensor([2, 0])), [2, 0]),
    "batch_repeat_interleave": (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
}
"""Ways to change the batch, and the rows that are then there."""


def cuts(card: Card) -> None:
    """Cut to any length that can be kept, it holds the first tokens as it held them, and goes on from there."""
    ids = tokens(2, PROMPT)
    lengths = (PROMPT, PROMPT - 1, PROMPT - 3) if is_eviction(card) else (PROMPT - 3, 41, 32, 3, 0)
    for setting, options in settings(card).items():
        cache = cache_of(card, options)
        logits(decoder(), ids, cache)
        before = _copies(cache)
        for length in lengths:
            cache.crop(length - cache.get_seq_length())
            assert cache.get_seq_length() == length, f"{card.name} cut to {length} says {cache.get_seq_length()}"
            positions = None if cache.rotation is None else cache.rotation.positions
            places = length if positions is None else positions.shape[1]
            assert places == length, f"{card.name} cut to {length} knows {places} positions"
            for after, old in zip(_copies(cache), before, strict=True):
                count = old.shape[2] - PROMPT + length  # of those that were held
                assert after.shape[2] == count, f"{card.name} cut to {length} holds {after.shape[2]} tokens"
                same = torch.allclose(after, old[:, :, :count], rtol=ROUNDED, atol=ROUNDED)
                assert same, f"{card.name} cut to {length} changes what it holds ({setting})"
        if is_eviction(card):
            try:
                cache.crop(-PROMPT)
            except ValueError:
                pass
            else:
                raise AssertionError(f"{card.name} is cut to tokens of which it let some go, and does not say so")
        _assert_goes_on(card, options, lengths[1], setting)


def _copies(cache: HeldCache) -> list[Tensor]:
    """Keys and values of all layers as they are now."""
    return [t.clone() for layer in cache.held for t in layer.read()]


def _assert_goes_on(card: Card, options: dict[str, Any], length: int, setting: str) -> None:
    """After other tokens were cut off, ``exact`` goes on as the plain cache does."""
    model, ids = decoder(), tokens(2, PROMPT)
    cache = cache_of(card, options)
    logits(model, ids[:, :length], cache)
    logits(model, tokens(2, 3, seed=9), cache)
    cache.crop(-3)
    said = logits(model, ids[:, length:], cache)
    if setting == "exact":
        off = relative_error(said, logits(model, ids)[:, length:])
        assert off <= NEAR, f"after a cut {card.name} says something else than the plain cache, by {off:.3g}"


def selections(card: Card) -> None:
    """Rows of the batch, each at positions of its own, are reordered, dropped and repeated: they are what they were,
    and go on as if fed so from the start."""
    ids, more = tokens(3, PROMPT), tokens(3, 19, seed=7)
    places = torch.arange(PROMPT + 19) + torch.tensor([[0], [5], [11]])
    before, after = places.split([PROMPT, 19], 1)
    right = logits(decoder(), torch.cat([ids, more], 1), positions=places)[:, PROMPT:]
    for setting, options in settings(card).items():
        for way, (change, index) in SELECTIONS.items():
            cache, other = cache_of(card, options), cache_of(card, options)
            logits(decoder(), ids, cache, positions=before)
            logits(decoder(), ids[index], other, positions=before[index])
            old = _copies(cache)
            change(cache)
            same = all(torch.equal(one, whole[index]) for one, whole in zip(_copies(cache), old, strict=True))
            assert same, f"{way} changes what {card.name} holds ({setting})"
            said, expected = (
                logits(decoder(), more[index], one, (1, 17, 1), positions=after[index]) for one in (cache, other)
            )
            off = relative_error(said, expected)
            budget = is_eviction(card) and len(index) < len(ids)  # which may be one for the batch
            assert budget or off <= ROUNDED, f"after {way} {card.name} goes on otherwise, by {off:.3g} ({setting})"
            off = relative_error(said, right[index])
            lost = setting != "exact" or off <= NEAR
            assert lost, f"after {way} {card.name} says something else than the plain cache, by {off:.3g}"


def adoption(card: Card) -> None:
    """Taking over an exact cache's tokens is having been fed them."""
    model, ids, more = decoder(), tokens(2, PROMPT), tokens(2, 3, seed=7)
    exact = recording_cache(model)
    logits(model, ids, exact)
    for setting, options in settings(card).items():
        adopted, fed = cache_of(card, options).adopt(exact), cache_of(card, options)
        logits(model, ids, fed)
        assert adopted.nbytes == fed.nbytes, (
            f"{card.name} holds {adopted.nbytes} adopted bytes, {fed.nbytes} fed ones"
        )
        off = relative_error(logits(model, more, adopted), logits(model, more, fed))
        assert off <= ROUNDED, f"{card.name} goes on otherwise with adopted tokens, by {off:.3g} ({setting})"
