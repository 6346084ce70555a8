"""Quality against size: a figure for every pair of axes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from polyad.evaluation.records import CompressionRecord, Point, is_measured
from polyad.report.points import (
    SIZES,
    label,
    mean_quality,
    measured_size,
    method_name,
    quality,
    texts,
)
from polyad.report.words import figure, is_number, ratio, short

COLOURS = ("#3f86cf", "#d5651a", "#0f9d76", "#c4689a", "#a8821a", "#8478d8", "#5f8f2e", "#c0504d")
"""Colours that colour-blind people can distinguish, visible on white and on black."""
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "x", "star", "hexagon")
AXES = {
    "bytes": ("bytes", "bytes, % of the original's"),
    "parameters": ("parameters", "parameters, % of the original's"),
    "operations": ("operations a token", "operations a token, % of the original's"),
    "decode": ("decoding speed", "decoding speed, % of the original's"),
}


def axes(records: Sequence[Point]) -> tuple[dict[str, str], dict[str, str]]:
    """Names of the axes that were measured: (sizes, qualities), each {key: what a menu calls it}."""
    good = [r for r in records if is_measured(r)]
    x = {key: AXES[key][0] for key in SIZES if any(_share(r, key) is not None for r in good)}
    y = {"mean": "geometric mean over the texts"} | {f"text{i}": f"on {name}" for i, name in enumerate(texts(good))}
    return x, y


def front_figures(records: Sequence[Point]) -> dict[str, dict[str, Any]]:
    """A figure {data, layout} for every pair of axes, by ``x|y``."""
    good = [r for r in records if is_measured(r)]
    x, y = axes(good)
    return {f"{a}|{b}": _figure(good, a, b, texts(good)) for a in x for b in y}


def pareto_front(places: Sequence[tuple[float, float]], more: bool) -> list[int]:
    """Indices of the points that no other beats in both coordinates, from left to right.

    The second coordinate is better when smaller; the first when smaller, or larger where ``more`` says so.

    >>> pareto_front([(1.0, 3.0), (2.0, 2.0), (3.0, 2.5)], more=False)
    [0, 1]
    """
    signed = [(-a if more else a, b) for a, b in places]
    indices = [
        i for i, mine in enumerate(signed)
        if not any(a <= mine[0] and b <= mine[1] and (a, b) != mine for a, b in signed)
    ]  # fmt: skip
    return sorted(indices, key=lambda i: places[i])


def _share(record: CompressionRecord, key: str) -> float | None:
    return ratio(measured_size(record["compressed"], key), measured_size(record["original"], key))


def _quality(record: CompressionRecord, key: str, names: Sequence[str]) -> tuple[float | None, float | None]:
    return mean_quality(record) if key == "mean" else quality(record, names[int(key.removeprefix("text"))])


def _figure(good: Sequence[CompressionRecord], a: str, b: str, names: Sequence[str]) -> dict[str, Any]:
    placed = [(r, _share(r, a), _quality(r, b, names)) for r in good]
    placed = [(r, 100 * x, y) for r, x, y in placed if x is not None and y[0] is not None]
    places = [(x, float(y[0] or 0.0)) for _, x, y in placed]
    line = pareto_front(places, more=a == "decode")
    data = [front_line([places[i] for i in line])] if len(line) > 1 else []
    data += [_original()]
    groups = list(dict.fromkeys(method_name(r) for r in good))
    for number, group in enumerate(groups):
        mine = [(r, x, y) for r, x, y in placed if method_name(r) == group]
        if mine:
            data.append(_group(group, mine, number, a))
    heights = [y for _, y in places] + [1.0]
    return {"data": data, "layout": _layout(a, b, names, spread=max(heights) / min(heights))}


def _layout(a: str, b: str, names: Sequence[str], spread: float) -> dict[str, Any]:
    where = "geometric mean" if b == "mean" else f"on {escape(names[int(b.removeprefix('text'))])}"
    return {
        "xaxis": {
            "title": {"text": AXES[a][1] + ("<br>(right is better)" if a == "decode" else "<br>(left is better)")},
            "ticksuffix": " %", "automargin": True,
        },
        "yaxis": {
            "title": {"text": f"perplexity, times the original's,<br>{where} (down is better)"},
            "automargin": True,
            **({"type": "log", "dtick": 1 if spread > 100 else "D2"} if spread > 3 else {"type": "linear"}),
        },
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "margin": {"l": 60, "r": 16, "t": 24, "b": 64}, "hovermode": "closest",
    }  # fmt: skip


def front_line(places: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """A trace: the dotted line through the points that no other beats."""
    return {
        "type": "scatter", "mode": "lines", "name": "front", "hoverinfo": "skip",
        "x": [x for x, _ in places], "y": [y for _, y in places],
        "line": {"dash": "dot", "width": 2, "color": "#8a8f98"},
    }  # fmt: skip


def _original() -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "name": "original", "x": [100.0], "y": [1.0],
        "text": ["the original"], "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": "diamond-open", "size": 13, "color": "#8a8f98", "line": {"width": 2.5}},
    }  # fmt: skip


def _group(name: str, mine: Sequence[Any], number: int, axis: str) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "name": escape(name, quote=False),
        "x": [x for _, x, _ in mine], "y": [y for _, _, (y, _) in mine],
        "error_y": {"type": "data", "array": [e or 0.0 for _, _, (_, e) in mine], "visible": True, "thickness": 1.2},
        "text": [_hover(r, axis) for r, _, _ in mine],
        "hovertemplate": "%{text}<br>perplexity %{y:.4f} times the original's<extra></extra>",
        "marker": {
            "size": 12, "color": COLOURS[number % len(COLOURS)], "symbol": SYMBOLS[number % len(SYMBOLS)],
        },
    }  # fmt: skip


def _hover(record: CompressionRecord, axis: str) -> str:
    before, after = measured_size(record["original"], axis), measured_size(record["compressed"], axis)
    write = (lambda v: short(v, "B")) if axis == "bytes" else figure if axis == "decode" else short
    unit = {"decode": " tokens a second", "parameters": " parameters", "operations": " operations a token"}
    comparison = f"{write(after)} in place of {write(before)}{unit.get(axis, '')}"
    top = (record.get("agreement") or {}).get("top1")
    same = f"<br>same top token {100 * top:.1f} %" if is_number(top) else ""
    return f"<b>{escape(label(record), quote=False)}</b><br>{comparison}{same}"
