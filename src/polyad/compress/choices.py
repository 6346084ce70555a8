"""The sizes that an item may be cut to, and what each of them costs and loses."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from polyad.allocate.curve import WHOLE, Curve
from polyad.statistics import Stats


def even_sizes(stop: int) -> range:
    """The sizes below ``stop`` that are offered: all of few, every fourth of dozens, every eighth of hundreds.

    Processors multiply matrices of odd widths up to half slower than the next multiple of eight.
    """
    step = 8 if stop >= 256 else 4 if stop >= 32 else 1
    return range(step, stop, step)


def output_error(difference: Tensor, stats: Stats, path: str) -> float:
    """E|D x|² for a difference D of weights; its squared Frobenius norm where no second moment is at hand."""
    second = stats[path].second if path in stats else None
    if second is None:
        return float(difference.square().sum())
    return float(((difference @ second.to(difference.dtype)) * difference).sum())


def cheaper_choices(choices: list[tuple[int, float, float]], whole: float, sweep: list[float] | None) -> Curve:
    """The choices (size, cost, error) below the cost of leaving the item whole, and that one, sorted by cost.

    Of choices of one cost the one of least error stays.
    """
    best: dict[float, tuple[int, float, float]] = {}
    for choice in [*(c for c in choices if c[1] < whole), (WHOLE, whole, 0.0)]:
        if choice[1] not in best or choice[2] < best[choice[1]][2]:
            best[choice[1]] = choice
    sizes, costs, errors = (np.array(column) for column in zip(*(best[c] for c in sorted(best)), strict=True))
    every = None if sweep is None else np.maximum(np.array(sweep, dtype=float), 0.0)
    return Curve(sizes.astype(np.int64), costs.astype(float), np.maximum(errors.astype(float), 0.0), every)
