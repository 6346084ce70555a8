"""Contract checks of group methods on what people meet by accident: dead blocks, damage, wrong arguments."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator
from dataclasses import replace

from polyad._card import Card
from polyad.statistics import Moments
from polyad.testing._refusals import assert_refused, result_or_refusal
from polyad.testing.groups._subject import Site, cut_block, loss, site, sites, units


def dead_blocks(card: Card) -> None:
    """A block with one matrix, or every one, of zeros computes nothing, and loses none of it; or it is refused."""
    for here in sites(card):
        for role in (*here.block.roles, None):
            model, paths = copy.deepcopy(here.model), here.block.roles
            for path in paths.values() if role is None else [paths[role]]:
                for parameter in model.get_submodule(path).parameters():
                    parameter.data.zero_()
            there = site(card, model, here.block)
            what = f"{here.block.name} with {role or 'all'} of zeros"
            for keep in {1, units(card, there.block, there.weights) // 2}:
                replacement = result_or_refusal(
                    card, what, functools.partial(cut_block, card, there, keep), here.block.path
                )
                off = 0.0 if replacement is None else loss(there, replacement)
                assert off < 1e-12, f"{card.name} of {what} loses {off:.3g} of nothing"
            if card.curve is not None:
                call = functools.partial(card.curve, there.block, there.weights, there.stats)
                curve = result_or_refusal(card, f"{what} (its curve)", call, here.block.path)
                stated = 0.0 if curve is None else float(curve.abs().max())
                assert stated < 1e-12, f"the curve of {card.name} of {what} says {stated:.3g}"


def damage(card: Card) -> None:
    """NaN and infinite numbers in a weight or statistic, and missing statistics, are refused, naming the matrix."""
    for here in sites(card):
        for name, tensor in here.weights.items():
            for value in (math.nan, math.inf):
                spoilt = tensor.clone()
                spoilt.view(-1)[1] = value
                there = replace(here, weights={**here.weights, name: spoilt})
                assert_refused(card, f"{value} in {name}", functools.partial(cut_block, card, there, 1), name)
        for path, stats in _spoilt(card, here):
            there = replace(here, stats=stats)
            assert_refused(
                card, f"statistics of {path} that are none", functools.partial(cut_block, card, there, 1), path
            )
            if card.curve is not None:
                call = functools.partial(card.curve, here.block, here.weights, stats)
                assert_refused(card, f"statistics of {path} that are none (its curve)", call, path)


def _spoilt(card: Card, here: Site) -> Iterator[tuple[str, dict[str, Moments]]]:
    """The statistics without those of each matrix that a method reads, without numbers, and with a NaN in them."""
    for role, needs in card.needs.items():
        path = here.block.roles.get(role)
        if path is None or not needs:
            continue
        yield path, {name: moments for name, moments in here.stats.items() if name != path}
        for need in needs:
            value = here.stats[path].values[need].clone()
            value.view(-1)[0] = math.nan
            values = here.stats[path].values
            yield path, {**here.stats, path: Moments(9, **{**values, need: value})}
            yield path, {**here.stats, path: Moments(9, **{**values, need: None})}


def refusals(card: Card) -> None:
    """Numbers of units that a block does not have, and what is no number, are refused, naming ``keep``."""
    for here in sites(card):
        count = units(card, here.block, here.weights)
        for keep in (0, -1, count + 1, True, 2.5, "4", None):
            assert_refused(card, f"keep={keep!r}", functools.partial(cut_block, card, here, keep), "keep")
