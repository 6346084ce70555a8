"""One threshold over items that may also be left whole."""

import warnings

import numpy as np
import pytest

from polyad.allocate import Curve
from polyad.allocate.global_threshold import _normalised, global_threshold


def curve(values, last):
    """The curve of a matrix with these singular values, of ranks up to ``last``, and whole."""
    errors = np.array([sum(v**2 for v in values[r:]) for r in range(1, last + 1)] + [0.0])
    sizes = np.array([*range(1, last + 1), -1])
    return Curve(sizes, np.arange(1.0, last + 2), errors)


@pytest.mark.parametrize("budget", [2.0, 4.0, 5.0, 6.0, 8.0])
def test_items_that_may_stay_whole_spend_the_budget(budget):
    items = {"slow": curve([4, 3, 2, 1.5, 1.4], 3), "fast": curve([4, 1, 0.1, 0.05, 0.01], 3)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sizes = global_threshold(items, budget)
    cost = {1: 1, 2: 2, 3: 3, -1: 4}
    assert sum(cost[s] for s in sizes.values()) == budget
    assert cost[sizes["slow"]] >= cost[sizes["fast"]]


def test_leaving_an_item_whole_adds_no_value_above_the_one_before():
    flat = curve([2.0, 1.5, 1.2, *[1.0] * 9], 3)  # the step to whole takes nine values at once
    assert _normalised(flat) == pytest.approx([1.0, 0.8, 0.8])
