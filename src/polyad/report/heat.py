"""Heat maps of layer by module: numbers left, error, and importance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from polyad.evaluation.records import CompressionRecord
from polyad.report.words import clean, figure, is_number, percent, ratio

MEASURES = {
    "left": "numbers left",
    "time": "time beside the original layer's",
    "error": "error at the chosen size",
    "importance": "importance",
}
NO_LAYERS = "The record holds no list of layers."
ELSEWHERE = "other"
ROW = 17
"""Pixels that a layer takes in the heat map."""


def layer_and_module(name: str) -> tuple[str, str]:
    """(layer, module) of a module's path or an item's name; the layer is the first number in it.

    >>> [layer_and_module(name) for name in ("model.layers.12.mlp.up_proj", "model.layers.3:vo", "lm_head")]
    [('12', 'mlp.up_proj'), ('3', 'vo'), ('other', 'lm_head')]
    """
    parts = name.replace(":", ".").split(".")
    for i, part in enumerate(parts[:-1]):
        if part.isdigit():
            return part, ".".join(parts[i + 1 :])
    return ELSEWHERE, name


def chosen_errors(plan: Mapping[str, Any]) -> dict[str, tuple[float, Any]]:
    """By item, (its error at the chosen size over its error when cut most, the size).

    The plan keeps some of the choices only; between two of them the error is taken as on a straight line.
    """
    shares: dict[str, tuple[float, Any]] = {}
    for name, curve in (plan.get("curves") or {}).items():
        for sizes in plan.get("sizes") or []:
            if name in sizes:
                error = interpolate(curve["sizes"], curve["errors"], sizes[name])
                share = ratio(error, curve["errors"][0])
                shares[name] = (0.0 if share is None and error == 0 else share or 0.0, sizes[name])
    return shares


def interpolate(sizes: Sequence[float], values: Sequence[float], size: float) -> float:
    """Interpolate the value at a size, linearly between the sizes given; one below 0 stands for the whole item."""
    if size < 0:
        return values[-1]
    known_sizes = [(s, v) for s, v in zip(sizes, values, strict=True) if s >= 0]
    below = max((p for p in known_sizes if p[0] <= size), default=known_sizes[0])
    above = min((p for p in known_sizes if p[0] >= size), default=known_sizes[-1])
    if above[0] == below[0]:
        return below[1]
    return below[1] + (above[1] - below[1]) * (size - below[0]) / (above[0] - below[0])


def heat(record: CompressionRecord) -> dict[str, Any]:
    """For each measure a figure {data, layout}, or the sentence that stands in its place."""
    plan = record["plan"]
    left = {row["path"]: _left(row) for row in record.get("layers") or []}
    lost = {
        name: (value, f"error {figure(value)} of that when cut most, at {_size(size)}")
        for name, (value, size) in chosen_errors(plan).items()
    }
    weighed = {n: (v, f"importance {figure(v)}") for n, v in (plan.get("importance") or {}).items() if is_number(v)}
    slower = {row["path"]: (t, _times(row)) for row in record.get("layers") or [] if (t := _time(row)) is not None}
    return {
        "left": _shares(left),
        "time": _figure(slower, "time of one row over the original layer's", True)
        if slower
        else "The speed of layers was not measured: ask for it with --alternations 15.",
        "error": _figure(lost, "error, as a share of the item's when cut most", True)
        if lost
        else "Every size was given by hand, so no errors were compared.",
        "importance": _figure(weighed, "importance: how much the output diverges when it alone is cut", True)
        if weighed
        else "Importance was not measured: the allocation did not ask for it.",
    }


def measures_by_use(record: CompressionRecord) -> dict[str, str]:
    """The measures, those that have a figure of this record first."""
    shown = heat(record)
    return dict(sorted(MEASURES.items(), key=lambda item: isinstance(shown[item[0]], str)))


def _shares(left: Mapping[str, tuple[float, str]]) -> dict[str, Any] | str:
    """The figure of the numbers left; a sentence where all layers keep the same share."""
    values = {round(value, 4) for value, _ in left.values()}
    if len(values) < 2:
        return f"Every layer keeps {percent(values.pop())} of its numbers." if values else NO_LAYERS
    return _figure(left, "share of numbers left", False)


def _time(row: Mapping[str, Any]) -> float | None:
    """The time of one row over the original layer's."""
    return next((t for rows, t in (row.get("time") or {}).items() if rows == "1" and is_number(t)), None)


def _times(row: Mapping[str, Any]) -> str:
    return "<br>".join(
        f"{figure(t)} of the original's time with {rows} row{'' if rows == '1' else 's'}"
        for rows, t in row["time"].items()
        if is_number(t)
    )


def height(records: Sequence[CompressionRecord]) -> int:
    """Pixels that the tallest heat map takes."""
    rows = [len({layer_and_module(row["path"])[0] for row in r.get("layers") or []}) for r in records]
    return 170 + ROW * max([*rows, 8])


def _size(size: Any) -> str:
    return "its whole size" if is_number(size) and size < 0 else f"size {size}"


def _left(row: Mapping[str, Any]) -> tuple[float, str]:
    whole = row.get("whole") or math.prod(row["shape"])
    share = ratio(row["parameters"], whole) or 0.0
    shape = " × ".join(map(str, row["shape"]))
    return share, f"{percent(share)}: {row['parameters']:,} of {whole:,} numbers<br>{row['kind']}, {shape}"


def _figure(cells: Mapping[str, tuple[float, str]], title: str, spread: bool) -> dict[str, Any]:
    places = {layer_and_module(name): value for name, value in cells.items()}
    layers = sorted({layer for layer, _ in places}, key=lambda v: (not v.isdigit(), int(v) if v.isdigit() else 0))
    columns = list(dict.fromkeys(module for _, module in places))
    values = [v for v, _ in places.values() if is_number(v)]
    positive = [v for v in values if v > 0]
    logs = spread and bool(positive) and max(positive) > 30 * min(positive)
    floor = max(min(positive), max(positive) * 1e-6) if logs else 0.0
    colour = (lambda v: math.log10(max(v, floor))) if logs else (lambda v: v)
    cell = {key: (colour(v) if is_number(v) else None, text) for key, (v, text) in places.items()}
    shown = [v for v, _ in cell.values() if v is not None]
    trace = {
        "type": "heatmap", "colorscale": "Cividis", "xgap": 1, "ygap": 1, "hoverongaps": False,
        "x": [column_name(c, columns) for c in columns], "y": [escape(v) for v in layers],
        "z": [[cell.get((layer, c), (None, ""))[0] for c in columns] for layer in layers],
        "text": [[_text(layer, c, cell) for c in columns] for layer in layers],
        "hovertemplate": "%{text}<extra></extra>",
        **_range(shown, spread),
        "colorbar": _bar(title, shown, logs),
    }  # fmt: skip
    return clean({"data": [trace], "layout": _layout(layers)})


def _range(shown: Sequence[float], spread: bool) -> dict[str, float]:
    low, high = min(shown, default=0.0), max(shown, default=1.0)
    if not spread:
        high = max(1.0, high)  # whole is whole: the scale's end has a meaning
        low = min(low, high - 0.1)
    return {"zmin": low, "zmax": high if high > low else low + 1.0}


def column_name(column: str, columns: Sequence[str]) -> str:
    """The name of a module in a figure: its last part where no other column has the same; escaped."""
    last = column.rsplit(".", 1)[-1]
    alone = sum(c.rsplit(".", 1)[-1] == last for c in columns) == 1
    return escape(last if alone else column, quote=False)


def _text(layer: str, column: str, cell: Mapping[tuple[str, str], tuple[Any, str]]) -> str:
    if (layer, column) not in cell:
        return ""
    where = f"layer {layer}, {column}" if layer != ELSEWHERE else column
    return f"<b>{escape(where, quote=False)}</b><br>{cell[layer, column][1]}"


def _bar(title: str, shown: Sequence[float], logs: bool) -> dict[str, Any]:
    bar: dict[str, Any] = {
        "title": {"text": title, "side": "top"}, "orientation": "h", "thickness": 12, "len": 1.0, "x": 0.5,
        "y": 1.0, "yanchor": "bottom", "outlinewidth": 0, "nticks": 6,
    }  # fmt: skip
    if not logs:
        return bar | ({"tickformat": ".0%"} if title.startswith("share") else {})
    low, high = math.floor(min(shown)), math.ceil(max(shown))
    ticks = [p + math.log10(m) for p in range(low, high + 1) for m in ((1, 3) if high - low < 4 else (1,))]
    ticks = [t for t in ticks if min(shown) - 1e-9 <= t <= max(shown) + 1e-9]
    return {**bar, "tickvals": ticks, "ticktext": [f"{10**t:.0e}" if t < -3 else f"{10**t:.3g}" for t in ticks]}


def _layout(layers: Sequence[str]) -> dict[str, Any]:
    step = max(1, len(layers) // 16)
    return {
        "xaxis": {"type": "category", "automargin": True, "tickangle": -40, "showgrid": False},
        "yaxis": {
            "type": "category", "autorange": "reversed", "title": {"text": "layer"}, "automargin": True,
            "showgrid": False, "tickvals": list(layers[::step]),
        },
        "margin": {"l": 56, "r": 12, "t": 76, "b": 40},
    }  # fmt: skip
