"""How a codec behaves inside a model: what is generated, and what chunks, cuts and reordering of the batch do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from polyad._card import Card
from polyad.cache import HeldCache, cache_for, remembering
from polyad.testing._contract import relative_error
from polyad.testing.codecs._subject import (
    DECODERS,
    NEAR,
    ROUNDED,
    TOKENS,
    WINDOW,
    cache_of,
    decoder,
    is_eviction,
    logits,
    settings,
    tokens,
)

PROMPT, NEW, PADDING = TOKENS + WINDOW, 6, 7
PIECEWISE = 1.5
"""How much more error pieces may have than tokens fed at once: what is found from many tokens fits each less well."""
SELECTIONS: dict[str, tuple[Callable[[HeldCache], None], list[int]]] = {
    "reorder_cache": (lambda cache: cache.reorder_cache(torch.tensor([2, 0, 1])), [2, 0, 1]),
    "batch_select_indices": (lambda cache: cache.batch_select_indices(torch.tensor([2, 0])), [2, 0]),
    "batch_repeat_interleave": (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
}
"""Ways to change the batch, and the rows that are then there."""
CHUNKS = (20, 1, 1, 9, 17, 2, 2)
"""Pieces in which ``PROMPT`` tokens are fed: shorter and longer than blocks, and single ones."""


def generating(card: Card) -> None:
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
    """What the model generates after a batch of two prompts, one of them padded on the left."""
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
    for setting, given in settings(card).items():
        cache = cache_of(card, given, dtype=torch.bfloat16)
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
    for setting, given in settings(card).items():
        at_once, pieces = cache_of(card, given), cache_of(card, given)
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


def cropping(card: Card) -> None:
    """Cut to any length that can be kept, it holds the first tokens as it held them, and goes on from there."""
    ids = tokens(2, PROMPT)
    lengths = (PROMPT, PROMPT - 1, PROMPT - 3) if is_eviction(card) else (PROMPT - 3, 41, 32, 3, 0)
    for setting, given in settings(card).items():
        cache = cache_of(card, given)
        logits(decoder(), ids, cache)
        before = _copies(cache)
        for length in lengths:
            cache.crop(length - cache.get_seq_length())
            assert cache.get_seq_length() == length, f"{card.name} cut to {length} says {cache.get_seq_length()}"
            positions = None if cache.rotation is None else cache.rotation.positions
            known = length if positions is None else positions.shape[1]
            assert known == length, f"{card.name} cut to {length} knows the positions of {known}"
            for after, old in zip(_copies(cache), before, strict=True):
                kept = old.shape[2] - PROMPT + length  # of those that were held
                assert after.shape[2] == kept, f"{card.name} cut to {length} holds {after.shape[2]} tokens"
                same = torch.allclose(after, old[:, :, :kept], rtol=ROUNDED, atol=ROUNDED)
                assert same, f"{card.name} cut to {length} changes what it holds ({setting})"
        if is_eviction(card):
            try:
                cache.crop(-PROMPT)
            except ValueError:
                pass
            else:
                raise AssertionError(f"{card.name} is cut to tokens of which it let some go, and does not say so")
        _assert_goes_on(card, given, lengths[1], setting)


def _copies(cache: HeldCache) -> list[Tensor]:
    """Keys and values of all layers as they are now."""
    return [t.clone() for layer in cache.held for t in layer.read()]


def _assert_goes_on(card: Card, given: dict[str, Any], length: int, setting: str) -> None:
    """After other tokens were cut off, ``exact`` goes on as the plain cache does."""
    model, ids = decoder(), tokens(2, PROMPT)
    cache = cache_of(card, given)
    logits(model, ids[:, :length], cache)
    logits(model, tokens(2, 3, seed=9), cache)
    cache.crop(-3)
    said = logits(model, ids[:, length:], cache)
    if setting == "exact":
        off = relative_error(said, logits(model, ids)[:, length:])
        assert off <= NEAR, f"after a cut {card.name} says something else than the plain cache, by {off:.3g}"


def selecting(card: Card) -> None:
    """Rows of the batch, each at positions of its own, are reordered, dropped and repeated: they are what they were,
    and go on as if fed so from the start."""
    ids, more = tokens(3, PROMPT), tokens(3, 19, seed=7)
    places = torch.arange(PROMPT + 19) + torch.tensor([[0], [5], [11]])
    before, after = places.split([PROMPT, 19], 1)
    right = logits(decoder(), torch.cat([ids, more], 1), positions=places)[:, PROMPT:]
    for setting, given in settings(card).items():
        for way, (change, index) in SELECTIONS.items():
            cache, other = cache_of(card, given), cache_of(card, given)
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


def adopting(card: Card) -> None:
    """Taking over an exact cache's tokens is having been fed them."""
    model, ids, more = decoder(), tokens(2, PROMPT), tokens(2, 3, seed=7)
    exact = remembering(model)
    logits(model, ids, exact)
    for setting, given in settings(card).items():
        adopted, fed = cache_of(card, given).adopt(exact), cache_of(card, given)
        logits(model, ids, fed)
        assert adopted.nbytes == fed.nbytes, (
            f"{card.name} holds {adopted.nbytes} adopted bytes, {fed.nbytes} fed ones"
        )
        off = relative_error(logits(model, more, adopted), logits(model, more, fed))
        assert off <= ROUNDED, f"{card.name} goes on otherwise with adopted tokens, by {off:.3g} ({setting})"
