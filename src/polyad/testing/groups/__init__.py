"""The contract of a group method: what every rule owes that cuts the matrices of a decoder's block together.

It is held on real decoders of transformers with grouped queries. Three entries of the card's ``example`` are for the
contract alone: ``of``, the kinds of blocks that the method cuts ("mlp", "qk", "vo"; all where it is left out);
``exact``, those for which its ``curve`` is the error of what a block of this kind computes (``loss``); and ``units``,
a function of a block and its weights that counts what can be cut, where these are no neurons, pairs or columns.

>>> from polyad._card import card
>>> permutation(card("modegpt"))
"""

from __future__ import annotations

import itertools

import torch

from polyad._card import Card
from polyad.testing._trial_models import logits, tokens
from polyad.testing.groups._awkward_blocks import damage, dead_blocks, refusals
from polyad.testing.groups._permutations import kill_units, permute_units
from polyad.testing.groups._subject import (
    OUTER,
    Site,
    cut_block,
    loss,
    predictions,
    products,
    site,
    site_after,
    sites,
    units,
)


def all_units(card: Card) -> None:
    """With all units kept the model predicts what it did, and the block computes what it did."""
    for here in sites(card):
        replacement = cut_block(card, here, units(card, here.block, here.weights))
        old = products(here)
        off = float((products(site_after(here, replacement)) - old).norm() / old.norm())
        what = f"{card.name} of {here.block.name}"
        assert off < 1e-7, f"{what} with all units kept changes what the block computes by {off:.3g}"
        ids = tokens(2, 16)
        said = logits(here.model, ids)
        off = float((predictions(here, replacement, ids) - said).norm() / said.norm())
        assert off < 1e-7, f"{what} with all units kept changes the logits by {off:.3g}"


def error_curve(card: Card) -> None:
    """One more unit never loses more, all of them lose nothing, and where the curve is exact it says what is lost."""
    for here in sites(card):
        count = units(card, here.block, here.weights)
        errors = [loss(here, cut_block(card, here, keep)) for keep in range(1, count + 1)]
        what = f"{card.name} of {here.block.name}"
        for keep, (more, less) in enumerate(itertools.pairwise(errors), 2):
            slack = 1e-6 if here.block.kind in card.example.get("exact", ()) else 0.05
            assert less <= more * (1 + slack), f"{what} leaves {less:.5g} with {keep} units, {more:.5g} with one less"
        assert errors[-1] <= 1e-12 * errors[0], f"{what} leaves {errors[-1]:.3g} with all units"
        if card.curve is None:
            continue
        curve = card.curve(here.block, here.weights, here.stats)
        assert len(curve) == count + 1, f"the curve of {what} has {len(curve)} entries for 0 to {count} units"
        assert bool((curve.diff() <= 1e-9 * curve[0]).all()), f"the curve of {what} rises"
        assert float(curve[-1].abs()) <= 1e-9 * float(curve[0]), f"the curve of {what} does not end at zero"
        if here.block.kind in card.example.get("exact", ()):
            for keep, error in enumerate(errors, 1):
                off = abs(error - float(curve[keep]))
                assert off <= 1e-4 * errors[0], f"{what} leaves {error:.5g} with {keep} units, not {curve[keep]:.5g}"


def permutation(card: Card) -> None:
    """Units in another order, and key heads with their query heads, leave what they left, in that order."""
    for here in sites(card):
        count = units(card, here.block, here.weights)
        there, heads = permute_units(here)
        for keep in {1, count // 2, count - 1}:
            first, second = (products(site_after(place, cut_block(card, place, keep))) for place in (here, there))
            off = float((second - first[heads]).norm() / first.norm())
            assert off < 1e-7, f"{card.name} of {here.block.name} with permuted units is off by {off:.3g}"


def dead_units(card: Card) -> None:
    """Units that compute nothing go first: a block of which half is dead loses nothing with the other half."""
    for here in sites(card):
        there = site(card, kill_units(here), here.block)
        count = units(card, there.block, there.weights)
        total = loss(there, cut_block(card, there, 1))
        off = loss(there, cut_block(card, there, count // 2)) / total
        assert off < 1e-6, f"{card.name} of {here.block.name} keeps dead units: {off:.3g} of the error is left"


def shapes(card: Card) -> None:
    """Replacements have the shapes of a narrower block, keep dtypes and run; twice the same; the weights stay."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for here in sites(card, dtype):
            count = units(card, here.block, here.weights)
            before = {name: t.clone() for name, t in here.weights.items()}
            for keep in {1, count // 2, count}:
                replacement, again = (cut_block(card, here, keep) for _ in range(2))
                what = f"{card.name} of {here.block.name} in {dtype} with {keep} of {count} units"
                _shapes(here, site_after(here, replacement), keep, count, what)
                first, second = (site_after(here, one).weights for one in (replacement, again))
                assert all(torch.equal(first[name], second[name]) for name in first), f"{what} differs at every call"
                said = predictions(here, replacement, tokens(2, 16))
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


CHECKS = (all_units, error_curve, permutation, dead_units, shapes, dead_blocks, damage, refusals)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "Site", "all_units", "cut_block", "damage", "dead_blocks", "dead_units", "error_curve", "loss",
    "permutation", "products", "refusals", "shapes", "site", "sites", "units",
]  # fmt: skip
