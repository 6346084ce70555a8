"""Checks of a codec's sizes: more bits, ranks and precision leave no more error."""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import torch

from polyad._card import Card
from polyad.testing._contract import normal, relative_error
from polyad.testing.codecs._subject import (
    KEY_HEADS,
    ROUNDED,
    TOKENS,
    WIDTH,
    Entries,
    codec_of,
    encode_entries,
    entries,
    is_eviction,
    round_trips,
    settings,
)

SIZES: dict[str, tuple[float, ...]] = {
    "bits": (2, 3, 4, 6, 8), "rank": (1, 2, 4, 8, 16, 32), "rate": (2.0, 3.0, 4.0, 6.0), "keep": (0.25, 0.5, 1.0),
}  # fmt: skip
"""Arguments that say how much is stored, and values of them that rise."""
COARSER = 1.05
"""The factor of error that half precision may add, its own roundings apart."""
SLACK = 1.02
"""The factor of error that a larger size may add: what is least in one norm need not be so in another."""


def arguments(card: Card) -> None:
    """The card has an example, and a nearly exact setting if an argument says how much is stored."""
    sized = [name for name in SIZES if name in inspect.signature(card.function).parameters]
    assert card.example, f"{card.name} has no example= on its card"
    assert not sized or card.exact is not None, f"{card.name} takes {sized[0]} and states no exact= on its card"
    block = codec_of(card, card.example).block
    assert TOKENS % block == 0, (
        f"the example of {card.name} has blocks of {block} tokens, which do not divide {TOKENS}"
    )


def refinement(card: Card) -> None:
    """More bits, ranks or tokens never leave more error, from the example up to ``exact``."""
    whole = entries(card)
    for name, sizes in SIZES.items():
        if name not in card.example or card.exact is None or is_eviction(card):  # whose shares `kept_tokens` compares
            continue
        last = {**card.example, **card.exact}[name] or float("inf")
        errors = {size: _error(card, {name: size}, whole) for size in sizes if size <= last}
        ordered = list(errors.values())
        for small, large in itertools.pairwise(ordered):
            assert large <= SLACK * small + ROUNDED, f"{card.name} errs more with more {name}: {errors}"


def _error(card: Card, changed: dict[str, Any], whole: Entries) -> float:
    sides = round_trips(codec_of(card, {**card.example, **changed}), whole)
    return sum(relative_error(back, right) ** 2 for _, back, right in sides)


def truncation(card: Card) -> None:
    """A rank below the full one leaves out the lesser part: a tenth less than directions chosen by chance would."""
    rank, full = card.example.get("rank"), (card.exact or {}).get("rank")
    if rank is None or full is None or rank >= full:
        return
    for name, back, right in round_trips(codec_of(card, dict(card.example)), entries(card)):
        lost = relative_error(back, right) ** 2
        chance = 1 - rank / full
        assert lost < 0.9 * chance, f"{card.name} at rank {rank} of {full} loses {lost:.3g} of the {name}"


def precision(card: Card) -> None:
    """Keys and values in half and single precision come back as float64 does, up to roundings, and in no narrower
    dtype; scores and what is mixed have the dtype of the queries and weights."""
    query = normal(3, KEY_HEADS, 5, WIDTH, dtype=torch.float64)
    weights = normal(3, KEY_HEADS, 5, TOKENS, dtype=torch.float64, seed=2).softmax(-1)
    for options in settings(card).values():
        whole = entries(card)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            codec = codec_of(card, options)
            wide = round_trips(codec_of(card, options), whole)
            half = whole.map(lambda t, dtype=dtype: t.to(dtype))
            for (name, back, right), (_, better, given_wide) in zip(round_trips(codec, half), wide, strict=True):
                same = torch.promote_types(back.dtype, dtype) == back.dtype
                assert same, f"{name} of {card.name} in {dtype} come back in {back.dtype}"
                off, before = relative_error(back, right), relative_error(better, given_wide)
                limit = COARSER * before + 2 * torch.finfo(dtype).eps
                assert off <= limit, f"{name} of {card.name} are off by {off:.3g} in {dtype}, {before:.3g} in float64"
            turn = None if whole.rotation is None else whole.turn
            keys, values = encode_entries(codec, half)[0]
            products = {
                "scores": codec.scores(query.to(dtype), keys, turn), "mix": codec.mix(weights.to(dtype), values)
            }  # fmt: skip
            for name, t in products.items():
                assert t.dtype == dtype, f"{name} of {card.name} in {dtype} are {t.dtype}"
                assert bool(torch.isfinite(t).all()), f"{name} of {card.name} in {dtype} are not finite"
