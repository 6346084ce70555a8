"""The contract of a group method: what every rule owes that cuts the matrices of a decoder's block together.

It is held on real decoders of transformers with grouped queries. Three entries of the card's ``example`` are for the
contract alone: ``of``, the kinds of blocks that the method cuts ("mlp", "qk", "vo"; all where it is left out);
``exact``, those for which its ``curve`` is the error of what a block of this kind computes (``loss``); and ``units``,
a function of a block and its weights that counts what can be cut, where these are no neurons, pairs or columns.

>>> from polyad._card import card
>>> permuted(card("modegpt"))
"""

from __future__ import annotations

import itertools

import torch

from polyad._card import Card
from polyad.testing._awkward_blocks import damaged, dead, refusals
from polyad.testing._cutting import (
    OUTER,
    Site,
    after,
    cut,
    loss,
    predictions,
    products,
    site,
    sites,
    units,
)
from polyad.testing._rearranging import rearranged, spared
from polyad.testing.decoders import logits, tokens


def whole(card: Card) -> None:
    """With all units kept the model predicts what it did, and the block computes what it did."""
    for here in sites(card):
        made = cut(card, here, units(card, here.block, here.weights))
        old = products(here)
        off = float((products(after(here, made)) - old).norm() / old.norm())
        what = f"{card.name} of {here.block.name}"
        assert off < 1e-7, f"{what} with all units kept changes what the block computes by {off:.3g}"
        ids = tokens(2, 16)
        said = logits(here.model, ids)
        off = float((predictions(here, made, ids) - said).norm() / said.norm())
        assert off < 1e-7, f"{what} with all units kept changes the logits by {off:.3g}"


def falling(card: Card) -> None:
    """One more unit never loses more, all of them lose nothing, and where the curve is exact it says what is lost."""
    for here in sites(card):
        count = units(card, here.block, here.weights)
        errors = [loss(here, cut(card, here, keep)) for keep in range(1, count + 1)]
        what = f"{card.name} of {here.block.name}"
        for keep, (more, less) in enumerate(itertools.pairwise(errors), 2):
            assert less <= more * (1 + 1e-6), f"{what} leaves {less:.5g} with {keep} units, {more:.5g} with one less"
        assert errors[-1] <= 1e-12 * errors[0], f"{what} leaves {errors[-1]:.3g} with all units"
        if card.curve is None:
            continue
        curve = card.curve(here.block, here.weights, here.stats)
        assert len(curve) == count + 1, f"the curve of {what} has {len(curve)} entries for 0 to {count} units"
        assert bool((curve.diff() <= 1e-9 * curve[0]).all()), f"the curve of {what} rises"
        assert float(curve[-1].abs()) <= 1e-9 * float(curve[0]), (
            f"the curve of {what} says that all units lose something"
        )
        if here.block.kind in card.example.get("exact", ()):
            for keep, error in enumerate(errors, 1):
                off = abs(error - float(curve[keep]))
                assert off <= 1e-4 * errors[0], f"{what} leaves {error:.5g} with {keep} units, not {curve[keep]:.5g}"


def permuted(card: Card) -> None:
    """Units in another order, and key heads with their query heads, leave what they left, in that order."""
    for here in sites(card):
        count = units(card, here.block, here.weights)
        there, heads = rearranged(here)
        for keep in {1, count // 2, count - 1}:
            first, second = (products(after(place, cut(card, place, keep))) for place in (here, there))
            off = float((second - first[heads]).norm() / first.norm())
            assert off < 1e-7, f"{card.name} of {here.block.name} with permuted units is off by {off:.3g}"


def spares(card: Card) -> None:
    """Units that compute nothing go first: a block of which half is dead loses nothing with the other half."""
    for here in sites(card):
        there = site(card, spared(here), here.block)
        count = units(card, there.block, there.weights)
        total = loss(there, cut(card, there, 1))
        off = loss(there, cut(card, there, count // 2)) / total
        assert off < 1e-6, f"{card.name} of {here.block.name} keeps dead units: {off:.3g} of the error is left"


def fits(card: Card) -> None:
    """Replacements have the shapes of a narrower block, keep dtypes and run; twice the same; the weights stay."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for here in sites(card, dtype):
            count = units(card, here.block, here.weights)
            before = {name: t.clone() for name, t in here.weights.items()}
            for keep in {1, count // 2, count}:
                made, again = (cut(card, here, keep) for _ in range(2))
                what = f"{card.name} of {here.block.name} in {dtype} with {keep} of {count} units"
                _shapes(here, after(here, made), keep, count, what)
                for name, value in after(here, again).weights.items():
                    assert torch.equal(value, after(here, made).weights[name]), f"{what} is different at every call"
                said = predictions(here, made, tokens(2, 16))
                assert bool(torch.isfinite(said).all()), f"{what} makes a model predict NaN or infinite numbers"
            for name, value in here.weights.items():
                assert torch.equal(value, before[name]), f"{card.name} changed {name} in place"


def _shapes(here: Site, there: Site, keep: int, count: int, what: str) -> None:
    """Every role's matrix has lost its share along the inner axis, with its bias, and kept its dtype."""
    unknown = there.weights.keys() - {f"{p}.{leaf}" for p in here.block.roles.values() for leaf in ("weight", "bias")}
    assert not unknown, f"{what} replaces {sorted(unknown)}, which are no part of the block"
    for role, path in here.block.roles.items():
        axis = OUTER.get(role, 0)
        old, new = here.weights[path + ".weight"], there.weights[path + ".weight"]
        stated = tuple(n * keep // count if i == axis else n for i, n in enumerate(old.shape))
        assert tuple(new.shape) == stated, f"{what} gives {role} the shape {tuple(new.shape)}, not {stated}"
        bias = there.weights.get(path + ".bias")
        for value in (new, bias):
            assert value is None or value.dtype == old.dtype, f"{what} gives {role} the dtype {value.dtype}"
        assert bias is None or len(bias) == stated[0], f"{what} gives the bias of {role} {len(bias)} entries"


CHECKS = (whole, falling, permuted, spares, fits, dead, damaged, refusals)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "Site", "cut", "damaged", "dead", "falling", "fits", "loss", "permuted", "products", "refusals",
    "site", "sites", "spares", "units", "whole",
]  # fmt: skip
