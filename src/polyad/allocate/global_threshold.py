"""Allocation by one threshold on normalised singular values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from polyad._card import Paper, method
from polyad.allocate.curve import Curve, Sizes, check_budget, spend_rest

WELORE = Paper("Jaiswal, Yin, Zhang, Liu, Zhao, Tian, Wang", 2024,
               "From GaLore to WeLore: How Low-Rank Weights Non-uniformly Emerge from Low-Rank Gradients",
               "arXiv:2407.11239", handle="welore", adds="one threshold k over all layers")  # fmt: skip


@method("allocate", papers=(WELORE,))
def global_threshold(items: Mapping[str, Curve], budget: float) -> Sizes:
    """Keep the singular values above one share k of each item's largest, with the least k that fits the budget.

    Squared singular values are what each size takes from the error, so curves must have their ``sweep``. Departs from
    the paper, which counts ranks, in counting true costs: a rank so high that the factors would cost more than the
    matrix leaves the matrix as it is. What is left of the budget goes to the finest steps. Cost: 60 counts an item.
    Raises for curves without a sweep, such as those of bits.

    >>> import numpy as np
    >>> sizes, costs = np.arange(1, 5), np.arange(1.0, 5.0)
    >>> slow, fast = np.array([30.0, 14.0, 5.0, 1.0, 0.0]), np.array([105.0, 5.0, 1.0, 0.0, 0.0])
    >>> slow, fast = (Curve(sizes, costs, sweep[1:], sweep) for sweep in (slow, fast))
    >>> global_threshold({"slow": slow, "fast": fast}, 5.0)
    {'slow': 4, 'fast': 1}
    """
    check_budget(items, budget)
    spectra = {name: _relative_singular_values(name, curve) for name, curve in items.items()}

    def places(k: float) -> dict[str, int]:
        return {name: _place(items[name], int((values > k).sum())) for name, values in spectra.items()}

    low, high = 0.0, 1.0
    for _ in range(60):
        k = (low + high) / 2
        spent = sum(float(items[name].costs[place]) for name, place in places(k).items())
        low, high = (low, k) if spent <= budget * (1 + 1e-12) else (k, high)
    return spend_rest(items, places(high), budget)


def _place(curve: Curve, size: int) -> int:
    """The cheapest choice of at least this size; the last one, the item as it is, where there is none."""
    return int(np.searchsorted(curve.sizes[:-1], size))


def _relative_singular_values(name: str, curve: Curve) -> np.ndarray:
    """Singular values, one for each size from 1, relative to the largest."""
    if curve.sweep is None:
        raise ValueError(
            f"items[{name!r}] has no sweep: its sizes are not ranks, and global_threshold compares singular values; "
            "allocate with greedy, equal_error or uniform"
        )
    values = np.sqrt(np.maximum(-np.diff(curve.sweep), 0.0))
    return values / max(float(values.max(initial=0.0)), 1e-300)
