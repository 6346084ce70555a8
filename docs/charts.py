"""Charts as SVG: bars, points and curves, for the pictures of README, guides and methods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

COLOURS = ("#3f86cf", "#d5651a", "#0f9d76", "#c4689a")
"""Told apart by people who are colour-blind."""
Point = tuple[str, float, float]
_TEXT = 'font-family="system-ui, sans-serif" font-size="14" fill="#222"'


def bars(title: str, rows: Sequence[tuple[str, float]], unit: str, strong: Sequence[str] = ()) -> str:
    """Horizontal bars from zero, each with its name and number; those in ``strong`` are coloured."""
    left, width, step = 250, 400, 34
    most = max(value for _, value in rows)
    parts = [_words(10, 24, title, weight=600)]
    for place, (name, value) in enumerate(rows):
        y = 42 + place * step
        colour = COLOURS[0] if name in strong else "#b9bec6"
        parts.append(_words(left - 10, y + 18, name, anchor="end"))
        parts.append(f'<rect x="{left}" y="{y}" width="{width * value / most:.1f}" height="24" fill="{colour}"/>')
        parts.append(_words(left + width * value / most + 8, y + 18, f"{value:.3g} {unit}"))
    return _svg(760, 56 + step * len(rows), parts)


def scatter(
    title: str, groups: Mapping[str, Sequence[Point]], across: str, up: str, *, log: bool = False, named: bool = True
) -> str:
    """Points of one or several groups with their names, across and up; ``log`` spreads the axis across by powers."""
    points = [point for group in groups.values() for point in group]
    place_x, marks_x = _axis([x for _, x, _ in points], 70, 600, log=log)
    place_y, marks_y = _axis([y for _, _, y in points], 360, 60)
    parts = [_words(10, 24, title, weight=600), _words(700, 408, across, anchor="end"), _words(10, 46, up)]
    for mark, text in marks_y:
        parts.append(f'<line x1="70" x2="700" y1="{mark:.1f}" y2="{mark:.1f}" stroke="#e3e5e8"/>')
        parts.append(_words(62, mark + 5, text, anchor="end"))
    parts += [_words(mark, 382, text, anchor="middle") for mark, text in marks_x]
    for colour, (group, members) in zip(COLOURS, groups.items(), strict=False):
        for name, x, y in members:
            parts.append(f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="6" fill="{colour}"><title>'
                         f"{escape(name)}</title></circle>")  # fmt: skip
            parts += (
                [_words(place_x(x) + 10, place_y(y) + (5 if x == _first_near(points, x, y) else 22), name)]
                if named
                else []
            )
        if len(groups) > 1:
            at = 60 + 22 * list(groups).index(group)
            parts += [f'<circle cx="560" cy="{at}" r="6" fill="{colour}"/>', _words(572, at + 5, group)]
    return _svg(760, 420, parts)


def lines(title: str, curves: Mapping[str, Sequence[float]], names: Sequence[str], up: str) -> str:
    """Curves over the same places, which have names below."""
    values = [value for curve in curves.values() for value in curve]
    place_y, marks = _axis([0.0, *values], 330, 50)
    step = 520 / max(1, len(names) - 1)
    parts = [_words(10, 24, title, weight=600), _words(10, 46, up)]
    for mark, text in marks:
        parts.append(f'<line x1="70" x2="600" y1="{mark:.1f}" y2="{mark:.1f}" stroke="#e3e5e8"/>')
        parts.append(_words(62, mark + 5, text, anchor="end"))
    for place, name in enumerate(names):
        x = 70 + place * step
        parts.append(f'<text x="{x:.1f}" y="348" transform="rotate(30 {x:.1f} 348)" {_TEXT}>{escape(name)}</text>')
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        path = " ".join(f"{70 + i * step:.1f},{place_y(value):.1f}" for i, value in enumerate(curve))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="3"/>')
        at = 60 + 22 * list(curves).index(name)
        parts += [f'<line x1="612" x2="632" y1="{at}" y2="{at}" stroke="{colour}" stroke-width="3"/>']
        parts += [_words(638, at + 5, name)]
    return _svg(760, 450, parts)


def _first_near(points: Sequence[Point], x: float, y: float) -> float:
    """The least x of the points whose names would lie on each other: nearly the same y, and not far across."""
    high, wide = (max(p[k] for p in points) - min(p[k] for p in points) for k in (2, 1))
    return min(p[1] for p in points if abs(p[2] - y) < 0.04 * high and abs(p[1] - x) < 0.3 * wide)


def _axis(values: Sequence[float], start: int, length_end: int, *, log: bool = False) -> Any:
    """Where a value stands between two ends of an axis, and its marks with their texts."""
    move = math.log10 if log else float
    low, high = min(map(move, values)), max(map(move, values))
    room = (high - low or 1) * 0.06
    low, high = low - room, high + room

    def place(value: float) -> float:
        return start + (move(value) - low) / (high - low) * (length_end - start)

    if log:
        marks = [10.0**power for power in range(math.ceil(low), math.floor(high) + 1)]
    else:
        step = 10 ** math.floor(math.log10((high - low) / 3))
        step = next(s for s in (step, 2 * step, 5 * step, 10 * step) if (high - low) / s <= 7)
        marks = [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return place, [(place(mark), f"{mark:,.10g}") for mark in marks]


def _words(x: float, y: float, text: str, *, anchor: str = "start", weight: int = 400) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" {_TEXT}>{escape(text)}</text>'
    )


def _svg(width: int, height: int, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>'
    return "\n".join([head, f'<rect width="{width}" height="{height}" rx="6" fill="#fff"/>', *parts, "</svg>", ""])
