"""Every allocation of the catalogue, held to the public contract, and wrong ones that it must catch."""

import math

import pytest

import polyad.allocate  # noqa: F401
from polyad._card import Card, Paper, methods
from polyad.allocate import equal_error, greedy, uniform
from polyad.allocate.curve import check_budget, spend_rest
from polyad.testing import allocations

CASES = {f"{c.name}-{check.__name__}": (c, check) for c in methods("allocate") for check in allocations.CHECKS}


@pytest.mark.parametrize(("card", "check"), CASES.values(), ids=list(CASES))
def test_contract(card, check):
    check(card)


def overspending(items, budget):
    return greedy(items, 1.3 * budget)


def by_rounding(items, budget):
    """The share of each item, rounded to the nearest choice."""
    share = check_budget(items, budget) / sum(c.whole for c in items.values())
    return {n: int(c.sizes[abs(c.costs - share * c.whole).argmin()]) for n, c in items.items()}


def stingy(items, budget):
    check_budget(items, budget)
    return {name: int(curve.sizes[0]) for name, curve in items.items()}


def of_places(items, budget):
    sizes = greedy(items, budget)
    return {name: list(items[name].sizes).index(size) for name, size in sizes.items()}


def of_numpy(items, budget):
    return {
        name: items[name].sizes[list(items[name].sizes).index(size)] for name, size in greedy(items, budget).items()
    }


def forgetting_one(items, budget):
    sizes = greedy(items, budget)
    return dict(list(sizes.items())[: max(1, len(sizes) - 1)])


def first_come(items, budget):
    """Every item takes what it can, in the order in which they are given."""
    rest = check_budget(items, budget) - sum(float(c.costs[0]) for c in items.values())
    places = {}
    for name, curve in items.items():
        places[name] = curve.affordable(float(curve.costs[0]) + rest)
        rest -= float(curve.costs[places[name]] - curve.costs[0])
    return spend_rest(items, places, budget)


def last_come(items, budget):
    return first_come(dict(reversed(items.items())), budget)


def half(items, budget):
    least = sum(float(c.costs[0]) for c in items.values())
    return uniform(items, max(least, budget / 2) if math.isfinite(budget) and budget >= least else budget)


def fickle(items, budget):
    """Spends an odd budget well and an even one badly."""
    return greedy(items, budget) if int(budget) % 2 else last_come(items, budget)


def tired(items, budget):
    """Chooses well until half of everything is spent."""
    return (greedy if budget < sum(c.whole for c in items.values()) / 2 else first_come)(items, budget)


def in_steps(items, budget):
    least = sum(float(c.costs[0]) for c in items.values())
    return greedy(items, max(least, budget // 10 * 10) if math.isfinite(budget) and budget >= least else budget)


def with_a_floor(items, budget):
    """Errors below one are taken for none."""
    return greedy({n: c.weigh(1.0) if c.errors.max() > 1 else c.weigh(0.0) for n, c in items.items()}, budget)


def in_bytes(items, budget):
    return first_come(items, budget) if sum(c.whole for c in items.values()) > 100 else greedy(items, budget)


def capped(items, budget):
    return greedy(items, min(budget, sum(c.whole for c in items.values()) - 1) if len(items) == 1 else budget)


def never_least(items, budget):
    least = sum(float(c.costs[0]) for c in items.values())
    return greedy(items, budget if budget > least else float("nan"))


def whole_numbers(items, budget):
    return greedy(items, float(int(budget)))


def forgiving(items, budget):
    least = sum(float(c.costs[0]) for c in items.values())
    return greedy(items, max(least, budget))


def mute(items, budget):
    if not items or not budget >= sum(float(c.costs[0]) for c in items.values()):
        raise ValueError("the budget is too small for these items, give a larger one")
    return greedy(items, budget)


def rounding_down(items, budget):
    least = sum(float(c.costs[0]) for c in items.values())
    if not budget >= least:
        raise ValueError(f"the budget of {budget} is too small for these items, give {least:.0f} or more")
    return greedy(items, budget)


def reading_sweeps(items, budget):
    assert_all = {name: curve.sweep[0] for name, curve in items.items()}
    return greedy({name: items[name] for name in assert_all}, budget)


def unlimited_without_sweep(items, budget):
    bare = any(curve.sweep is None for curve in items.values())
    return greedy(items, 1e9 if bare else budget)


def vague(items, budget):
    if any(curve.sweep is None for curve in items.values()):
        raise ValueError("this allocation does not like these curves")
    return greedy(items, budget)


SUM, LARGEST = {"minimises": "sum"}, {"minimises": "largest"}
WRONG = {
    "within_budget": (overspending, by_rounding, stingy, of_places, of_numpy, forgetting_one),
    "least_loss": (stingy, first_come, half, (greedy, LARGEST), (uniform, LARGEST)),
    "more_budget": (fickle, (fickle, LARGEST), uniform, tired),
    "order": (first_come, last_come, forgetting_one),
    "units": (with_a_floor, in_bytes, in_steps),
    "extremes": (capped, never_least, overspending, half),
    "refusals": (forgiving, mute, rounding_down, whole_numbers),
    "curve_kinds": (reading_sweeps, unlimited_without_sweep, vague),
}
SPOILT = {
    f"{prop}-{function.__name__}-{example['minimises']}": (prop, function, example)
    for prop, several in WRONG.items()
    for function, example in (wrong if isinstance(wrong, tuple) else (wrong, SUM) for wrong in several)
}


@pytest.mark.parametrize(("prop", "function", "example"), SPOILT.values(), ids=list(SPOILT))
def test_each_check_catches_allocations_that_break_it(prop, function, example):
    source = Paper("Nobody", 2000, "Nothing", "arXiv:0")
    with pytest.raises(AssertionError):
        getattr(allocations, prop)(Card("spoilt", "allocate", function, None, (source,), example))


@pytest.mark.parametrize("right", [greedy, equal_error], ids=lambda right: right.__name__)
def test_least_and_more_know_two_aims(right):
    source = Paper("Nobody", 2000, "Nothing", "arXiv:0")
    card = Card("right", "allocate", right, None, (source,), SUM if right is greedy else LARGEST)
    allocations.least_loss(card)
    allocations.more_budget(card)
