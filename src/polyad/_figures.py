"""Figures in words: numbers with thousands separated, and shares."""

from __future__ import annotations


def number(value: float | None, digits: int = 2) -> str:
    """A number for people, with thousands separated; an en dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def share(part: float | None, whole: float | None) -> str:
    """A ratio as a percentage, with one digit."""
    return "–" if part is None or not whole else f"{100 * part / whole:.1f} %"
