"""One threshold on normalised singular values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from polyad._card import Paper, method
from polyad.allocate.curve import Curve, Sizes, checked, spend_rest

WELORE = Paper("Jaiswal, Yin, Zhang, Liu, Zhao, Tian, Wang", 2024,
               "From GaLore to WeLore: How Low-Rank Weights Non-uniformly Emerge from Low-Rank Gradients",
               "arXiv:2407.11239", handle="welore", adds="one threshold k over all layers")  # fmt: skip


@method("allocate", papers=(WELORE,))
def global_threshold(items: Mapping[str, Curve], budget: float) -> Sizes:
    """Keep the singular values above one share k of each item's largest, with the least k that fits the budget.

    Singular values are read off a curve as the roots of what each step takes from the error, so curves should
    hold every rank. Departs from the paper, which counts ranks, in counting true costs: a rank so high that the
    factors would cost more than the matrix leaves the matrix as it is.

    >>> import numpy as np
    >>> slow = Curve(np.arange(1, 5), np.arange(1.0, 5.0), np.array([14.0, 5.0, 1.0, 0.0]))
    >>> fast = Curve(np.arange(1, 5), np.arange(1.0, 5.0), np.array([1.0101, 0.0101, 0.0001, 0.0]))
    >>> global_threshold({"slow": slow, "fast": fast}, 5.0)
    {'slow': 3, 'fast': 2}
    """
    checked(items, budget)
    kept = {name: _normalised(curve) for name, curve in items.items()}

    def places(k: float) -> dict[str, int]:
        return {name: min(int((values > k).sum()), len(items[name].sizes) - 1) for name, values in kept.items()}

    low, high = 0.0, 1.0
    for _ in range(60):
        k = (low + high) / 2
        spent = sum(float(items[name].costs[place]) for name, place in places(k).items())
        low, high = (low, k) if spent <= budget * (1 + 1e-12) else (k, high)
    return spend_rest(items, places(high), budget)


def _normalised(curve: Curve) -> np.ndarray:
    """For each step up from the cheapest choice, the singular value that it adds, relative to the first."""
    steps = np.diff(curve.sizes)
    values = np.sqrt(np.maximum(-np.diff(curve.errors), 0.0) / np.where(steps > 0, steps, 1))
    if len(values) > 1 and steps[-1] < 0:  # leaving an item whole adds several values, none above the one before
        values[-1] = min(values[-1], values[-2])
    return values / max(float(values.max(initial=0.0)), 1e-300)
