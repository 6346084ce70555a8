"""Checks of a codec inside a model: tokens generated, chunks, cuts, and a batch that is reordered."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from polyad._card import Card
from polyad.cache import HeldCache, cache_for
from polyad.testing._contract import relative_error
from polyad.testing.codecs._subject import (
    DECODERS,
    NEAR,
    PADDING,
    PROMPT,
    ROUNDED,
    TOKENS,
    cache_of,
    decoder,
    is_eviction,
    logits,
    settings,
    tokens,
)

NEW = 6
"""Tokens that are generated."""
PIECEWISE = 1.5
"""The factor of error that pieces may have beside tokens fed at once, where a codec adapts to each call."""
CHUNKS = (20, 1, 1, 9, 17, 2, 2)
"""Pieces in which ``PROMPT`` tokens are fed: shorter and longer than blocks, and single ones."""


def generation(card: Card) -> None:
    """With ``exact``, the tokens of the plain cache: greedy and with beams, of a batch padded on the left."""
    if card.exact is None:
        return
    for kind in DECODERS:
        for beams in (1, 3):
            sinks = 0 if is_eviction(card) or beams > 1 else 2
            cache = cache_of(card, settings(card)["exact"], kind=kind, sinks=sinks)
            generated = _generate(decoder(kind), beams, cache)
            stored = [layer.stored.length for layer in cache.held]
            assert min(stored) >= TOKENS // 2, f"{card.name} stored {stored} of {PROMPT} tokens and more"
            same = torch.equal(generated, _plain_tokens(kind, beams))
            assert same, f"{card.name} generates other tokens than the plain cache ({kind}, {beams} beams)"


def _generate(model: Any, beams: int, cache: Any) -> Tensor:
    """The tokens generated after a batch of two prompts, one of them padded on the left."""
    ids = tokens(2, PROMPT)
    mask = torch.ones_like(ids)
    mask[0, :PADDING] = 0
    return model.generate(
        ids, attention_mask=mask, past_key_values=cache, num_beams=beams, max_new_tokens=NEW, do_sample=False
    )


@functools.cache
def _plain_tokens(kind: str, beams: int) -> Tensor:
    return _generate(decoder(kind), beams, None)


def half_precision(card: Card) -> None:
    """In a model of half precision, with beams and padding, everything stays in half precision and finite."""
    for setting, options in settings(card).items():
        cache = cache_of(card, options, dtype=torch.bfloat16)
        model = decoder(dtype=torch.bfloat16)
        _generate(model, 2, cache)
        said = logits(model, tokens(4, 1, seed=8), cache)
        dtypes = {t.dtype for layer in cache.held for t in layer.read()}
        assert dtypes | {said.dtype} == {torch.bfloat16}, (
            f"{card.name} reads {dtypes} in a model of bfloat16 ({setting})"
        )
        finite = all(bool(t.isfinite().all()) for layer in cache.held for t in layer.read())
        assert finite, f"{card.name} reads NaN or infinite numbers in bfloat16 ({setting})"
        assert bool(said.isfinite().all()), (
            f"what a model says with {card.name} is not finite in bfloat16 ({setting})"
        )


def chunks(card: Card) -> None:
    """Fed in pieces, ``exact`` says what the plain cache says, and any setting stores what it stores fed at once."""
    model, ids = decoder(), tokens(2, PROMPT)
    right = logits(model, ids)
    for setting, options in settings(card).items():
        at_once, pieces = cache_of(card, options), cache_of(card, options)
        logits(model, ids, at_once)
        said = logits(model, ids, pieces, CHUNKS)
        assert pieces.get_seq_length() == PROMPT, f"{card.name} says that it holds {pieces.get_seq_length()} tokens"
        if setting == "exact":
            off = relative_error(said, right)
            assert off <= NEAR, f"in pieces {card.name} says something else than the plain cache, by {off:.3g}"
        if not is_eviction(card):
            errors = [_first_error(cache, ids) for cache in (at_once, pieces)]
            limit = PIECEWISE * errors[0] + ROUNDED
            assert errors[1] <= limit, f"in pieces {card.name} errs by {errors[1]:.3g}, at once by {errors[0]:.3g}"


def _first_error(cache: HeldCache, ids: Tensor) -> float:
    """The error of the first layer, which gets the same keys and values however the tokens are fed."""
    exact = cache_for(decoder())
    logits(decoder(), ids, exact)
    sides = zip(cache.held[0].read(), exact.held[0].read(), strict=True)
    return max(relative_error(stored, right) for stored, right in sides)
