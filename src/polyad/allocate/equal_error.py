"""Allocation at one relative error for every item."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from polyad._card import Paper, method
from polyad.allocate.curve import Curve, Sizes, check_budget, spend_rest

ALDS = Paper("Liebenwein, Maalouf, Gal, Feldman, Rus", 2021,
             "Compressing Neural Networks: Towards Determining the Optimal Layer-wise Decomposition",
             "arXiv:2107.11442",
             adds="the global search that minimises the largest relative error over layers; its choice of channel "
                  "groups is not here yet")  # fmt: skip


@method("allocate", papers=(ALDS,))
def equal_error(items: Mapping[str, Curve], budget: float) -> Sizes:
    """Minimise the largest relative error: each item gets the cheapest size that stays under one common level.

    An item's error is taken relative to that of its cheapest choice. The level is found by bisection over the
    errors that occur; what is left over goes to the finest steps. Cost: about 60 binary searches an item.

    >>> import numpy as np
    >>> flat = Curve(np.arange(1, 4), np.arange(1.0, 4.0), np.array([1.0, 0.1, 0.0]))
    >>> steep = Curve(np.arange(1, 4), np.arange(1.0, 4.0), np.array([1.0, 0.9, 0.0]))
    >>> equal_error({"flat": flat, "steep": steep}, 5.0)
    {'flat': 2, 'steep': 3}
    """
    check_budget(items, budget)
    relative = {name: curve.errors / max(float(curve.errors[0]), 1e-300) for name, curve in items.items()}

    def places(level: float) -> dict[str, int]:
        return {name: int(np.argmax(errors <= level)) for name, errors in relative.items()}

    def fits(level: float) -> bool:
        reached = all(errors.min() <= level for errors in relative.values())
        return reached and cost(level) <= budget * (1 + 1e-12)

    def cost(level: float) -> float:
        return sum(float(items[name].costs[place]) for name, place in places(level).items())

    levels = np.unique(np.concatenate([*relative.values(), [1.0]]))
    low, high = 0, len(levels) - 1  # the highest level always fits
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(float(levels[middle])) else (middle + 1, high)
    return spend_rest(items, places(float(levels[low])), budget)
