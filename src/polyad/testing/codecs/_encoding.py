"""Checks of a codec by itself: every number comes back in its place, and attention is over what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from polyad._card import Card
from polyad.testing._contract import normal, relative_error
from polyad.testing.codecs._subject import (
    KEY_HEADS,
    NEAR,
    ROUNDED,
    WIDTH,
    codec_of,
    encode_entries,
    entries,
    restore_entries,
    round_trips,
    settings,
    statistics,
)

ONE = 3 * NEAR
"""The error of one token's keys or values, as a part of its head's root mean square, that counts as none."""
STORED = 2e-4
"""The relative error of attention over what is stored, beside its dense form, whose parts may be in float16."""
LIKE = {"channel": 0.5, "token": 0.1}
"""The cosine that each channel, and each token, keeps with what was given where no setting is nearly exact."""


def restoration(card: Card) -> None:
    """With ``exact``, keys and values come back, every token's of every head; else their channels and tokens do."""
    for setting, options in settings(card).items():
        whole = entries(card)
        for name, back, right in round_trips(codec_of(card, options), whole):
            assert back.shape == right.shape, f"{card.name}: {name} have the shape {tuple(back.shape)}"
            if setting == "exact":
                size = right.square().sum(-1).mean(-1, keepdim=True).sqrt()  # of a head
                off = float(((back - right).norm(dim=-1) / size).max())
                assert off <= ONE, f"{card.name}: {name} of some token are off by {off:.3g} where nothing is lost"
            elif card.exact is None:
                for dim, (what, least) in zip((-2, -1), LIKE.items(), strict=True):
                    like = float(_cosine(back, right, dim).min())
                    assert like > least, f"{card.name}: {name} of some {what} are unlike those given: {like:.2g}"


def places(card: Card) -> None:
    """Keys and values come back more like those given than like others: of another head, row or time, or flipped."""
    for options in settings(card).values():
        whole = entries(card)
        for name, back, right in round_trips(codec_of(card, options), whole):
            like = _likeness(back, right)
            others = {
                "flipped in time": right.flip(2), "one token later": right.roll(1, 2),
                "one token earlier": right.roll(-1, 2), "of another head": right.flip(1),
                "of another row": right.roll(1, 0),
            }  # fmt: skip
            for what, wrong in others.items():
                assert bool((like > _likeness(back, wrong)).all()), f"{card.name}: {name} are more like those {what}"


def _likeness(x: Tensor, y: Tensor) -> Tensor:
    """The cosine between the numbers of each head (batch, heads) without their mean over tokens."""
    return _cosine((x - x.mean(2, keepdim=True)).flatten(2), (y - y.mean(2, keepdim=True)).flatten(2), -1)


def _cosine(x: Tensor, y: Tensor, dim: int) -> Tensor:
    return torch.cosine_similarity(x.double(), y.double(), dim)


def attention(card: Card) -> None:
    """``scores`` are queries times the rotated ``keys``, and ``mix`` is weights times the ``values``."""
    query = normal(3, KEY_HEADS, 5, WIDTH, dtype=torch.float64)
    for options in settings(card).values():
        whole, codec = entries(card), codec_of(card, options)
        for keys, values in encode_entries(codec, whole):
            dense, formed = codec.keys(keys), codec.values(values)
            turn = None if whole.rotation is None else whole.turn
            weights = normal(3, KEY_HEADS, 5, values.shape[-2], dtype=torch.float64, seed=2).softmax(-1)
            expected = query @ (dense if turn is None else turn(dense)).mT
            _near(codec.scores(query, keys, turn), expected, f"the scores of {card.name} and its keys", STORED)
            if turn is not None:
                plain = codec.scores(query, keys, None)
                _near(plain, query @ dense.mT, f"the scores of {card.name} without rotation and its keys", STORED)
            _near(codec.mix(weights, values), weights @ formed, f"what {card.name} mixes and its values", STORED)


def permutations(card: Card) -> None:
    """Rows of the batch, and heads, permuted before are permuted after; a row alone is that row among others."""
    order = torch.tensor([2, 0, 1])
    for setting, options in settings(card).items():
        whole = entries(card)
        right = restore_entries(codec_of(card, options), whole)
        orders = {
            "rows": (whole.map(lambda t: t[order]), lambda t: t[order], None),
            "one row": (whole.map(lambda t: t[1:2]), lambda t: t[1:2], None),
            "rows beside larger ones": (whole.map(_enlarge_others), lambda t: t, None),
            "heads": (whole.map(_flip_heads), _flip_heads, _flip_statistics(statistics(card))),
        }
        for what, (other, change, calibration) in orders.items():
            rows = 1 if what == "rows beside larger ones" else None
            result = restore_entries(codec_of(card, options, calibration), other)
            for pair, expected in zip(result, right, strict=True):
                for name, back, before in zip(("keys", "values"), pair, expected, strict=True):
                    said = f"{name} of {what} and those before, by {card.name} ({setting}),"
                    _near(back[:rows], change(before)[:rows], said)


def _enlarge_others(t: Tensor) -> Tensor:
    return torch.cat([t[:1], 100 * t[1:]])


def _flip_heads(t: Tensor) -> Tensor:
    """The other order of key heads; query heads follow theirs."""
    return t.unflatten(1, (KEY_HEADS, -1)).flip(1).flatten(1, 2)


def _flip_statistics(seen: Sequence[Mapping[str, Tensor]] | None) -> list[dict[str, Tensor]] | None:
    """Calibration with the key heads in the other order: along dimensions of heads, or of all heads' channels."""
    return None if seen is None else [{name: _flip_blocks(t) for name, t in layer.items()} for layer in seen]


def _flip_blocks(t: Tensor) -> Tensor:
    for dim, n in enumerate(t.shape):
        if n in (KEY_HEADS, KEY_HEADS * WIDTH):
            t = t.unflatten(dim, (KEY_HEADS, -1)).flip(dim).flatten(dim, dim + 1)
    return t


def _near(result: Tensor, expected: Tensor, what: str, within: float = ROUNDED) -> None:
    assert result.shape == expected.shape, f"{what} have the shapes {tuple(result.shape)} and {tuple(expected.shape)}"
    off = relative_error(result, expected)
    assert off <= within, f"{what} are {off:.3g} apart"
