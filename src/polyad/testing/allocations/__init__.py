"""The contract of an allocation: what every function owes that spends one budget on many items.

It is called with curves, a budget and the card's ``example``, in which ``minimises`` is for the contract alone: what
is least, "sum", the sum of the errors, up to one step of a curve's hull; or "largest", the largest error as a share
of its curve's first. An allocation that ``needs`` a statistic of layers gets ``scores``, as in ``polyad.plan``.

>>> from polyad._card import card
>>> within_budget(card("greedy"))
"""

from __future__ import annotations

import functools
import itertools
import math
import re

import numpy as np

from polyad._card import Card
from polyad.allocate.curve import WHOLE, Curve
from polyad.testing._refusals import assert_refused, result_or_refusal
from polyad.testing.allocations._subject import (
    LOSSES,
    Items,
    call_allocation,
    cost,
    costs_even,
    loss,
    places,
    problems,
    step,
)


def within_budget(card: Card) -> None:
    """Every item gets one of its sizes, all cost at most the budget, and what is left buys no item a lower error."""
    for items, budget in problems(card):
        sizes = call_allocation(card, items, budget)
        assert sizes.keys() == items.keys(), f"{card.name} gives sizes to {sorted(sizes)}, not to {sorted(items)}"
        for name, size in sizes.items():
            assert type(size) is int, f"{card.name} gives {name} the size {size!r} of type {type(size).__name__}"
            assert size in items[name].sizes, (
                f"{card.name} gives {name} the size {size}, which its curve does not have"
            )
        at = places(items, sizes)
        left = budget - cost(items, at)
        assert left >= -1e-9 * budget, f"{card.name} spends {budget - left:g} of {budget:g}"
        for name, curve in items.items():
            reach = curve.errors[at[name] : curve.affordable(curve.costs[at[name]] + left - 1e-9) + 1]
            spare = float(reach[0] - reach.min()) if len(reach) else 0.0
            assert spare <= 1e-9, (
                f"{card.name} leaves {left:g} of {budget:g}, with which {name} would lose {spare:g} less"
            )


def least_loss(card: Card) -> None:
    """No choice that the budget allows leaves less of what an allocation minimises, up to the step that it states."""
    if "minimises" not in card.example:
        return
    for items, budget in problems(card):
        outcome = loss(card, items, places(items, call_allocation(card, items, budget)))
        every = itertools.product(*(range(len(curve.sizes)) for curve in items.values()))
        choices = (dict(zip(items, at, strict=True)) for at in every)
        best = min(loss(card, items, at) for at in choices if cost(items, at) <= budget)
        limit = best + (step(items) if card.example["minimises"] == "sum" else 0.0)
        assert outcome <= limit + 1e-9, (
            f"{card.name} leaves {outcome:g} at a budget of {budget:g}, where {best:g} can be had"
        )


def more_budget(card: Card) -> None:
    """More budget never leaves more of what an allocation minimises, where every step costs the same."""
    if "minimises" not in card.example:
        return
    for seed in range(20):
        items = costs_even(seed)
        before = math.inf
        for budget in range(len(items), sum(int(curve.whole) for curve in items.values()) + 1):
            outcome = loss(card, items, places(items, call_allocation(card, items, float(budget))))
            assert outcome <= before + 1e-9, f"{card.name} leaves {outcome:g} at {budget}, {before:g} at one less"
            before = outcome


def order(card: Card) -> None:
    """The order in which items are given decides nothing, among equals neither."""
    for items, budget in (*problems(card), *_equals()):
        plain = call_allocation(card, items, budget)
        for names in (list(items)[::-1], sorted(items, key=lambda name: name[::-1])):
            outcome = call_allocation(card, {name: items[name] for name in names}, budget)
            assert outcome == plain, f"{card.name} gives {outcome} in one order and {plain} in another"


def _equals() -> list[tuple[Items, float]]:
    curve = costs_even(0)["item0"]
    return [(dict.fromkeys(("first", "second", "third"), curve), float(budget)) for budget in (5, 8, 11)]


def units(card: Card) -> None:
    """Costs and budget in another unit, and all errors in another unit, give the same sizes."""
    for items, budget in problems(card):
        plain = call_allocation(card, items, budget)
        bits = {name: Curve(c.sizes, 8 * c.costs, c.errors, c.sweep) for name, c in items.items()}
        assert call_allocation(card, bits, 8 * budget) == plain, f"{card.name} depends on the unit of costs"
        for factor in (2.0**-40, 2.0**40):
            outcome = call_allocation(card, {name: curve.weigh(factor) for name, curve in items.items()}, budget)
            assert outcome == plain, f"{card.name} depends on the unit of errors: {outcome} at {factor:.3g}, {plain}"


def extremes(card: Card) -> None:
    """The least budget gives the cheapest sizes, enough of it loses nothing; one item and one choice will do."""
    for items, _ in problems(card):
        for some in (items, dict(itertools.islice(items.items(), 1))):
            cheapest = sum(float(curve.costs[0]) for curve in some.values())
            call = functools.partial(call_allocation, card, some, cheapest)
            sizes = result_or_refusal(card, f"the least budget of {cheapest:g}", call)
            assert sizes is not None, f"{card.name} refuses the least budget of {cheapest:g}"
            at = places(some, sizes)
            assert not any(at.values()), f"{card.name} at the least budget of {cheapest:g} chooses {at}"
            for budget in (sum(curve.whole for curve in some.values()), 1e30, math.inf):
                at = places(some, call_allocation(card, some, budget))
                off = sum(float(some[name].errors[place] - some[name].errors.min()) for name, place in at.items())
                assert off == 0, (
                    f"{card.name} loses {off:g} at a budget of {budget:g}, which is enough for everything"
                )
    only = Curve(np.array([WHOLE]), np.array([3.0]), np.zeros(1), np.zeros(2))
    outcome = call_allocation(card, {"only": only}, 3.0)
    assert outcome == {"only": WHOLE}, f"{card.name} of an item with one choice gives {outcome}"
    lossless = Curve(np.array([1, WHOLE]), np.array([1.0, 4.0]), np.zeros(2), np.zeros(5))
    lossy = Curve(np.array([1, WHOLE]), np.array([1.0, 4.0]), np.array([1.0, 0.0]), np.array([2.0, 1.0, 0.0]))
    outcome = call_allocation(card, {"lossless": lossless, "lossy": lossy}, 5.0)
    assert outcome["lossy"] == WHOLE, f"{card.name} spends on an item that loses nothing: {outcome}"


def refusals(card: Card) -> None:
    """Budgets that cannot be met are refused with the least that can, which then is met; so are no items, and NaN."""
    for items, _ in (*problems(card), *_equals()):
        for unit in (1.0, 1e-3, 12345.678):
            some = {name: Curve(c.sizes, unit * c.costs, c.errors, c.sweep) for name, c in items.items()}
            cheapest = sum(float(curve.costs[0]) for curve in some.values())
            for budget in (0.999 * cheapest, 0.0, -1.0, math.nan, -math.inf):
                call = functools.partial(call_allocation, card, some, budget)
                assert_refused(card, f"a budget of {budget:g} for items of {cheapest:g}", call, "budget")
            said = _sentence(card, some, 0.0)
            numbers = [float(word.replace(",", "")) for word in re.findall(r"\d[\d,]*\.?\d*(?:e-?\d+)?", said)]
            near = [number for number in numbers if abs(number / cheapest - 1) < 1e-9]
            assert near, (
                f"{card.name} refuses a budget and does not name the least that can be met, {cheapest!r}: {said}"
            )
            call_allocation(card, some, near[0])
    assert_refused(card, "no items", lambda: call_allocation(card, {}, 3.0), "items")


def _sentence(card: Card, items: Items, budget: float) -> str:
    try:
        call_allocation(card, items, budget)
    except ValueError as refused:
        return str(refused)
    return ""


def curve_kinds(card: Card) -> None:
    """Curves without choices are refused when they are made; curves that are no spectrum are used or refused."""
    empty = np.zeros(0)
    assert_refused(card, "a curve of no choices", lambda: Curve(empty.astype(np.int64), empty, empty), "0 sizes")
    for items, budget in problems(card, rough=True):
        bare = {name: Curve(c.sizes, c.costs, c.errors) for name, c in items.items()}
        call = functools.partial(call_allocation, card, bare, budget)
        sizes = result_or_refusal(card, "curves without a sweep", call, "sizes")
        spent = 0.0 if sizes is None else cost(bare, places(bare, sizes))
        assert spent <= budget * (1 + 1e-9), f"{card.name} spends {spent:g} of {budget:g} on curves without a sweep"


CHECKS = (within_budget, least_loss, more_budget, order, units, extremes, refusals, curve_kinds)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "LOSSES", "call_allocation", "curve_kinds", "extremes", "least_loss", "more_budget", "order",
    "problems", "refusals", "units", "within_budget",
]  # fmt: skip
