"""Allocation by the best trade of error against cost over all items."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

import numpy as np

from polyad._card import Paper, method
from polyad.allocate.curve import Curve, Sizes, check_budget, spend_rest

SHOHAM = Paper(
    "Shoham, Gersho", 1988, "Efficient bit allocation for an arbitrary set of quantizers", "doi:10.1109/29.90373",
    adds="steps along the lower convex hulls in the order of their slopes",
)  # fmt: skip


@method("allocate", papers=(SHOHAM,))
def greedy(items: Mapping[str, Curve], budget: float) -> Sizes:
    """Minimise the sum of the errors: from the cheapest sizes, always the step that buys most error for its cost.

    Steps run along each curve's lower convex hull, so the result is the optimum of the sum up to one step. Cost:
    O(steps log items). Refuses a budget that no choice of sizes can meet.

    >>> import numpy as np
    >>> a = Curve(np.arange(1, 4), np.arange(1.0, 4.0), np.array([9.0, 1.0, 0.0]))
    >>> b = Curve(np.arange(1, 4), np.arange(1.0, 4.0), np.array([2.0, 1.0, 0.0]))
    >>> greedy({"a": a, "b": b}, 3.0)
    {'a': 2, 'b': 1}
    """
    rest = check_budget(items, budget) - sum(float(curve.costs[0]) for curve in items.values())
    hulls = {name: lower_hull(curve) for name, curve in items.items()}
    places = dict.fromkeys(items, 0)
    steps = [_step(name, items[name], hull, 0) for name, hull in hulls.items() if len(hull) > 1]
    heapq.heapify(steps)
    while steps:
        _, name, at = heapq.heappop(steps)
        curve, hull = items[name], hulls[name]
        price = float(curve.costs[hull[at + 1]] - curve.costs[hull[at]])
        if price > rest * (1 + 1e-12):
            continue  # too dear for what is left; cheaper steps of others may still fit
        rest -= price
        places[name] = hull[at + 1]
        if at + 2 < len(hull):
            heapq.heappush(steps, _step(name, curve, hull, at + 1))
    return spend_rest(items, places, budget)


def _step(name: str, curve: Curve, hull: list[int], at: int) -> tuple[float, str, int]:
    here, there = hull[at], hull[at + 1]
    slope = float((curve.errors[there] - curve.errors[here]) / (curve.costs[there] - curve.costs[here]))
    return (slope, name, at)


def lower_hull(curve: Curve) -> list[int]:
    """Places of the lower convex hull of error over cost, from the cheapest choice to that of least error."""
    last = int(np.argmin(curve.errors))
    hull: list[int] = []
    for i in range(last + 1):
        while len(hull) > 1 and not _below(curve, hull[-2], hull[-1], i):
            hull.pop()
        hull.append(i)
    return hull


def _below(curve: Curve, a: int, b: int, c: int) -> bool:
    """True where b lies strictly under the line from a to c."""
    run = (curve.costs[b] - curve.costs[a]) / (curve.costs[c] - curve.costs[a])
    return bool(curve.errors[b] < curve.errors[a] + run * (curve.errors[c] - curve.errors[a]))
