"""Numbers in words and figures, and as JSON can hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
NONE = "–"


def is_number(value: Any) -> TypeGuard[float]:
    """True for finite numbers."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def clean(value: Any) -> Any:
    """The same data with every number that is not finite, and every float's digits after the sixth, left out.

    >>> clean({"a": [float("nan"), 1 / 3, 7]})
    {'a': [None, 0.333333, 7]}
    """
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [clean(v) for v in value]
    return value


def number(value: Any, digits: int = 2) -> str:
    """A number with thousands separated; an en dash where there is none."""
    return f"{value:,.{digits}f}" if is_number(value) else NONE


def figure(value: Any) -> str:
    """A number with four significant digits, and thousands separated where they are whole."""
    if not is_number(value):
        return NONE
    return f"{value:,.0f}" if abs(value) >= 999.95 or value == 0 else f"{value:#.4g}"


def short(value: Any, unit: str = "") -> str:
    """A large number with a prefix of a thousand's power.

    >>> short(269_060_000, "B"), short(12)
    ('269.1 MB', '12')
    """
    if not is_number(value):
        return NONE
    for size, prefix in UNITS:
        if abs(value) >= size:
            return f"{value / size:.1f} {prefix}{unit}"
    return f"{value:,.0f} {unit}".rstrip()


def ratio(part: Any, whole: Any) -> float | None:
    """One number over another; None where either is missing or the second is 0."""
    return part / whole if is_number(part) and is_number(whole) and whole else None


def percent(value: Any, digits: int = 1) -> str:
    """A share as a percentage."""
    return f"{100 * value:.{digits}f} %" if is_number(value) else NONE


def size_phrase(share: float | None) -> str:
    """A share of an old size in words: so many times smaller or larger.

    >>> size_phrase(0.5), size_phrase(1.25), size_phrase(1.0)
    ('2.00 times smaller', '1.25 times larger', 'the same size')
    """
    if not is_number(share) or not share:
        return "of unknown size"
    if abs(share - 1) < 0.0005:
        return "the same size"
    return f"{1 / share:.2f} times smaller" if share < 1 else f"{share:.2f} times larger"


def change_phrase(share: float | None) -> str:
    """A ratio to an old value in words: so much higher or lower.

    >>> change_phrase(1.031), change_phrase(3.0), change_phrase(0.99)
    ('3.1 % higher', '3.00 times as high', '1.0 % lower')
    """
    if not is_number(share) or share is None:
        return "not known"
    if abs(share - 1) < 0.0005:
        return "the same"
    if share >= 2:
        return f"{share:.2f} times as high"
    return f"{100 * abs(share - 1):.1f} % {'higher' if share > 1 else 'lower'}"


def speed_phrase(share: float | None) -> str:
    """A ratio of speeds in words: so many times faster or slower.

    >>> speed_phrase(1.5), speed_phrase(0.5)
    ('1.50 times faster', '2.00 times slower')
    """
    if not is_number(share) or not share:
        return "not measured"
    if abs(share - 1) < 0.005:
        return "as fast as before"
    return f"{share:.2f} times faster" if share > 1 else f"{1 / share:.2f} times slower"
