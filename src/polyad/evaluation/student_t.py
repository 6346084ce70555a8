"""Student's t: the factor from a standard error to half of a 95 % interval."""

from __future__ import annotations

import functools
import math


@functools.cache
def quantile(degrees: int, coverage: float = 0.95) -> float:
    """The t within which a Student variable of so many degrees of freedom lies with this probability, on both sides.

    >>> [round(quantile(n), 3) for n in (1, 2, 5, 100)]
    [12.706, 4.303, 2.571, 1.984]
    """
    if degrees < 1:
        raise ValueError(f"degrees={degrees} is not a number of degrees of freedom; it is at least 1")
    low, high = 0.0, math.pi / 2
    while high - low > 1e-14:
        angle = (low + high) / 2
        low, high = (angle, high) if _probability(angle, degrees) < coverage else (low, angle)
    return math.sqrt(degrees) * math.tan(low)


def _probability(angle: float, degrees: int) -> float:
    """P(\\|T\\| < √degrees tan(angle)), by the finite series in powers of the cosine."""
    cosine, odd = math.cos(angle), degrees % 2
    term = cosine if odd else 1.0
    total = 0.0
    for power in range(odd + 2, degrees + 1, 2):
        total += term
        term *= cosine * cosine * (power - 1) / power
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
