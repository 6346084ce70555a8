"""Every codec of the catalogue, held to the public contract, and the contract held to codecs that break it."""

from dataclasses import replace

import pytest
import torch

import polyad.cache  # noqa: F401
from polyad._card import Card, Paper, methods
from polyad.cache import Eviction, Kivi, Palu, StreamingLLM
from polyad.cache.eviction import largest
from polyad.formats import Dense
from polyad.testing import codecs

CASES = {f"{c.name}-{check.__name__}": (c, check) for c in methods("codec") for check in codecs.CHECKS}
PAPER = Paper("Nobody", 2000, "Nothing", "arXiv:0")


@pytest.mark.parametrize(("card", "check"), CASES.values(), ids=list(CASES))
def test_contract(card, check):
    check(card)


def toy(kind, exact, **example):
    example = example or {"bits": 4, "group": 4}
    needs = {"": frozenset({"keys", "values"})} if issubclass(kind, Palu) else {}
    return Card(kind.__name__, "codec", kind, None, (PAPER,), example, needs, exact=exact)


class KeyNorms(Eviction):
    """Tokens with the smallest keys, which get most attention."""

    def choose(self, entries, scores, left, held):
        ((keys, _),), (score,) = entries, scores
        small = (1 / keys.norm(dim=-1)).masked_fill(score < 0, -1)
        return [largest(small, self.due(self.keep, score.shape[-1], left, held[0]))]


EVICTING = {"keep": 0.5, "block": 4}


@pytest.mark.parametrize("check", codecs.CHECKS, ids=lambda check: check.__name__)
def test_an_eviction_that_chooses_by_keys_keeps_the_contract(check):
    check(toy(KeyNorms, {"keep": 1.0}, **EVICTING))


class Flipped(Kivi):
    def encode(self, keys, values, queries):
        return super().encode(keys.flip(2), values, queries)


class Halved(Kivi):
    def encode(self, keys, values, queries):
        half = torch.cat([values[..., :4], values.flip(1)[..., 4:]], -1)
        return super().encode(keys, half, queries)


class Both(Halved, Flipped):
    """What used to pass once its own examples were edited."""


class Exchanged(Kivi):
    def encode(self, keys, values, queries):
        return super().encode(keys.flip(1), values, queries)


class Swapped(Kivi):
    def encode(self, keys, values, queries):
        return super().encode(values, keys, queries)


class Forgetful(Kivi):
    def encode(self, keys, values, queries):
        last = torch.arange(keys.shape[-2]) % self.block == self.block - 1
        return super().encode(keys, values.masked_fill(last[:, None], 0), queries)


class Unrotated(Palu):
    def scores(self, query, stored, turn):
        return super().scores(query, stored, None)


class Together(Kivi):
    """One scale for all rows of the batch."""

    def encode(self, keys, values, queries):
        size = keys.abs().amax((0, 2), keepdim=True)
        codes = (keys / size * 127).round() / 127 * size
        return super().encode(codes, values, queries)


class Hiding(Kivi):
    def encode(self, keys, values, queries):
        self._aside = keys.clone()
        return super().encode(keys, values, queries)


class Twice(Kivi):
    @property
    def state(self):
        return (torch.ones(100),)


class Charging(Kivi):
    """What belongs to the sequences, called shared."""

    def encode(self, keys, values, queries):
        self._aside = keys.clone()
        return super().encode(keys, values, queries)

    @property
    def bases(self):
        return (self._aside,)


class Wide(Kivi):
    def scores(self, query, stored, turn):
        return super().scores(query.float(), stored, turn)


class Fragile(Kivi):
    """Calls what torch has in single precision alone."""

    def encode(self, keys, values, queries):
        return super().encode(keys + 0 * torch.linalg.svdvals(keys)[..., :1, None], values, queries)


class Worse(Kivi):
    def __init__(self, place=None, *, bits=2, group=4):
        super().__init__(place, bits=10 - bits, group=group)


class Least(Palu):
    """Keeps the directions that matter least."""

    def __init__(self, place, *, rank=4):
        turned = {name: torch.linalg.inv(place.need(name).double()) for name in ("keys", "values")}
        super().__init__(replace(place, seen=turned), rank=rank)


class Unstated(Kivi):
    pass


class Reversing(Kivi):
    """Flips what it stores and flips it back, whatever was joined or cut between."""

    def encode(self, keys, values, queries):
        return super().encode(keys.flip(2), values, queries)

    def keys(self, stored):
        return super().keys(stored).flip(2)

    def scores(self, query, stored, turn):
        return super().scores(query, stored, turn).flip(-1)


class Stuck(Kivi):
    """The first call's scale for all calls."""

    def __init__(self, place=None, *, bits=2, group=4):
        super().__init__(place, bits=bits, group=group)
        self._limit = None

    def encode(self, keys, values, queries):
        self._limit = keys.abs().amax((2, 3), keepdim=True) * 0.5 if self._limit is None else self._limit
        if keys.shape[2] < 40:
            keys = keys.clamp(-self._limit, self._limit)
        return super().encode(keys, values, queries)

    def select(self, index):
        self._limit = None if self._limit is None else self._limit[index]


class Unselected(Kivi):
    """Remembers rows and does not reorder them."""

    def __init__(self, place=None, *, bits=2, group=4):
        super().__init__(place, bits=bits, group=group)
        self._size = None

    def encode(self, keys, values, queries):
        self._size = 1 + keys.square().mean((1, 2, 3), keepdim=True) if self._size is None else self._size
        return super().encode(keys / self._size, values, queries)

    def keys(self, stored):
        return super().keys(stored) * self._size

    def scores(self, query, stored, turn):
        return super().scores(query * self._size.to(query.dtype), stored, turn)

    @property
    def state(self):
        return () if self._size is None else (self._size,)


class Noisy(Kivi):
    def encode(self, keys, values, queries):
        return super().encode(keys * (1 + 1e-4 * torch.rand(())), values, queries)


class Spendthrift(KeyNorms):
    def due(self, share, tokens, left, held):
        return min(tokens, super().due(share, tokens, left, held) + 2)


class Shifted(KeyNorms):
    def encode(self, keys, values, queries):
        return Dense(keys.roll(1, 2)), Dense(values)


class Hasty(StreamingLLM):
    """Chooses when the first token leaves, whatever its sinks are."""

    def __init__(self, place, *, sinks=4):
        super().__init__(place, sinks=sinks)
        self.block = 1


class Absent(KeyNorms):
    """Mixes heads only where it attends to what is stored."""

    def mix(self, weights, stored):
        return super().mix(weights.flip(1), stored)


class First(KeyNorms):
    def choose(self, entries, scores, left, held):
        return super().choose(entries, [score.clamp(min=0) for score in scores], left, held)


class OneHead(KeyNorms):
    def choose(self, entries, scores, left, held):
        ((keys, values),) = entries
        return super().choose([(keys[:, :1].expand_as(keys), values)], scores, left, held)


NEAR, RANKED = {"bits": 8}, {"rank": 8}
SPOILT = {
    "arguments": [toy(Unstated, None)],
    "restoration": [
        toy(Flipped, NEAR), toy(Halved, NEAR), toy(Halved, None), toy(Forgetful, NEAR), toy(Forgetful, None),
        toy(Both, NEAR), toy(Both, None), toy(Swapped, NEAR), toy(Exchanged, NEAR),
    ],
    "places": [toy(Flipped, None), toy(Both, NEAR), toy(Both, None), toy(Exchanged, None), toy(Swapped, None)],
    "attention": [toy(Unrotated, {"rank": 16}, **RANKED), toy(Absent, {"keep": 1.0}, **EVICTING)],
    "permutations": [toy(Together, NEAR), toy(Noisy, NEAR)],
    "refinement": [toy(Worse, NEAR)],
    "truncation": [toy(Least, {"rank": 16}, **RANKED)],
    "precision": [toy(Wide, NEAR)],
    "generation": [toy(Unrotated, {"rank": 16}, **RANKED), toy(Forgetful, NEAR), toy(Reversing, NEAR)],
    "half_precision": [toy(Fragile, NEAR)],
    "chunks": [toy(Reversing, NEAR), toy(Stuck, NEAR)],
    "cuts": [toy(Reversing, NEAR)],
    "selections": [toy(Unselected, NEAR)],
    "adoption": [toy(Noisy, NEAR)],
    "byte_count": [toy(Hiding, NEAR), toy(Twice, NEAR)],
    "growth": [toy(Charging, NEAR)],
    "kept_tokens": [toy(Spendthrift, {"keep": 1.0}, **EVICTING), toy(Shifted, {"keep": 1.0}, **EVICTING),
                    toy(Hasty, None, sinks=2)],
    "later_tokens": [toy(Absent, {"keep": 1.0}, **EVICTING)],
    "left_padding": [toy(First, {"keep": 1.0}, **EVICTING)],
    "choices": [toy(OneHead, {"keep": 1.0}, **EVICTING)],
}  # fmt: skip
WRONG = {
    f"{prop}-{card.name}{'' if card.exact else '-example'}": (prop, card)
    for prop, cards in SPOILT.items()
    for card in cards
}


def test_every_check_has_a_codec_that_breaks_it():
    assert set(SPOILT) == {check.__name__ for check in codecs.CHECKS}


@pytest.mark.parametrize(("prop", "card"), WRONG.values(), ids=list(WRONG))
def test_each_check_catches_a_codec_that_breaks_it(prop, card):
    with pytest.raises(RuntimeError if card.function is Fragile else AssertionError):
        getattr(codecs, prop)(card)
