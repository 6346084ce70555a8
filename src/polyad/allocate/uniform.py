"""Allocation of the same share to every item."""

from __future__ import annotations

from collections.abc import Mapping

from polyad._card import Paper, method
from polyad.allocate.curve import Curve, Sizes, even_places, spend_rest

EXAMPLE = Paper("Sainath, Kingsbury, Sindhwani, Arisoy, Ramabhadran", 2013,
                "Low-rank matrix factorization for deep neural network training with high-dimensional output targets",
                "doi:10.1109/ICASSP.2013.6638949", adds="one rank ratio for every layer")  # fmt: skip


@method("allocate", papers=(EXAMPLE,))
def uniform(items: Mapping[str, Curve], budget: float) -> Sizes:
    """Cut every item to the same share of its own cost, as nearly as its steps permit.

    ``budget`` is the total cost allowed, in the curves' unit. Items that steps leave below their share get what
    is left over. Cost: a binary search an item. Refuses a budget that no choice of sizes can meet.

    >>> import numpy as np
    >>> curve = Curve(np.arange(1, 5), np.arange(1.0, 5.0), np.array([3.0, 2.0, 1.0, 0.0]))
    >>> uniform({"a": curve, "b": curve}, 4.0)
    {'a': 2, 'b': 2}
    """
    return spend_rest(items, even_places(items, budget), budget)
