"""The curve of an item: the sizes to which it can be cut, with the cost and the error of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WHOLE = -1
"""The size of an item that is left as it is."""

Sizes = dict[str, int]
"""The size chosen for each item: a rank, a width, a number of bits, or WHOLE."""


@dataclass(frozen=True, eq=False)
class Curve:
    """The choices of one item, cheapest first: sizes, exact costs and errors, arrays of one length.

    Costs rise strictly; errors are squared and add up over items. The last choice is the item left as it is.
    ``sweep`` has the errors at the sizes 0, 1, 2, …, also at those that no choice has because they would cost more
    than the item does; None where sizes do not count terms of a sum.
    """

    sizes: NDArray[np.int64]
    costs: NDArray[np.float64]
    errors: NDArray[np.float64]
    sweep: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        a, b, c = len(self.sizes), len(self.costs), len(self.errors)
        if not a == b == c > 0:
            raise ValueError(f"a curve has {a} sizes, {b} costs and {c} errors; give one or more, equally many")
        if not (np.isfinite(self.errors).all() and (np.diff(self.costs) > 0).all()):
            raise ValueError("a curve needs finite errors and costs that rise strictly")

    @property
    def whole(self) -> float:
        """The cost of leaving the item as it is."""
        return float(self.costs[-1])

    def weigh(self, weight: float) -> Curve:
        """Multiply the errors by ``weight``, to compare items whose errors differ in unit."""
        sweep = None if self.sweep is None else self.sweep * weight
        return Curve(self.sizes, self.costs, self.errors * weight, sweep)

    scaled = weigh  # its name in 0.1.0

    def affordable(self, budget: float) -> int:
        """The index of the largest choice that costs at most ``budget``; 0, the cheapest, where none does."""
        return max(int(np.searchsorted(self.costs, budget * (1 + 1e-12), side="right")) - 1, 0)


def check_budget(items: Mapping[str, Curve], budget: float) -> float:
    """Refuse budgets that no choice of sizes can meet, naming the nearest that one can. Returns the budget."""
    least = sum(float(curve.costs[0]) for curve in items.values())
    whole = sum(curve.whole for curve in items.values())
    if not items:
        raise ValueError("items is empty; give a curve for each item")
    if not budget >= least * (1 - 1e-12):
        raise ValueError(
            f"no allocation meets the budget of {budget:,.12g}: the {len(items)} items cost {whole:,.12g} as they "
            f"are and at least {least:,.12g} when cut most; the nearest is a share of {least / whole:.4f} of them"
        )
    return budget


def even_places(items: Mapping[str, Curve], budget: float) -> dict[str, int]:
    """The place of each item's choice at the largest share of their own costs that all can have."""
    share = check_budget(items, budget) / sum(curve.whole for curve in items.values())
    low, high = 0.0, max(share, 1.0)
    for _ in range(60):  # the largest common share whose rounded-down choices fit
        middle = (low + high) / 2
        spent = sum(float(c.costs[c.affordable(middle * c.whole)]) for c in items.values())
        low, high = (middle, high) if spent <= budget * (1 + 1e-12) else (low, middle)
    return {name: curve.affordable(low * curve.whole) for name, curve in items.items()}


def spend_rest(items: Mapping[str, Curve], places: dict[str, int], budget: float) -> Sizes:
    """Spend what coarse steps leave over on the items with the finest ones; the sizes at the places reached."""
    places = dict(places)
    rest = budget - sum(float(items[name].costs[place]) for name, place in places.items())
    by_step = sorted(items, key=lambda name: (float(np.diff(items[name].costs, prepend=0).min()), name), reverse=True)
    for name in by_step:  # coarse items first: the finest spend what is left after them
        curve, place = items[name], places[name]
        reach = curve.affordable(float(curve.costs[place]) + rest)
        reach = place + int(np.argmin(curve.errors[place : max(reach, place) + 1]))  # the cheapest of least error
        if reach > place:
            rest -= float(curve.costs[reach] - curve.costs[place])
            places[name] = reach
    return {name: int(items[name].sizes[place]) for name, place in places.items()}
