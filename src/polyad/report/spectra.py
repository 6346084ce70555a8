"""Figures of error against size, for every item and every size to which it could be cut."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from polyad.evaluation.records import CompressionRecord
from polyad.report.front import COLOURS, SYMBOLS
from polyad.report.heat import ELSEWHERE, chosen_errors, column_name, interpolate, layer_and_module
from polyad.report.words import clean, figure, ratio

LEAST = 1e-9
"""Shares of error below this are rounding and would only stretch the axis."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
NONE = "Every size was given by hand, so there is no curve to choose from."


def spectra(record: CompressionRecord) -> dict[str, Any] | str:
    """Traces by item with the groups of a menu: {items: {name: [curve, chosen]}, groups: [[layer, names]], layout}.

    Across is the share of the item's cost, up the share of its error when cut most. Or the sentence that stands in
    the figure's place.
    """
    plan = record["plan"]
    curves = plan.get("curves") or {}
    if not curves:
        return NONE
    chosen = chosen_errors(plan)
    columns = list(dict.fromkeys(layer_and_module(name)[1] for name in curves))
    items, groups = {}, {}
    for name, curve in curves.items():
        layer, module = layer_and_module(name)
        groups.setdefault("other modules" if layer == ELSEWHERE else f"layer {layer}", []).append(name)
        items[name] = _traces(name, column_name(module, columns), curve, chosen.get(name), columns.index(module))
    return clean({"items": items, "groups": list(groups.items()), "layout": _layout(str(plan.get("budget")))})


def _traces(
    name: str, module: str, curve: Mapping[str, Any], chosen: tuple[float, Any] | None, number: int
) -> list[dict[str, Any]]:
    costs, top = curve["costs"], curve["errors"][0]
    shares = [ratio(e, top) for e in curve["errors"]]
    common = {
        "type": "scatter", "name": module, "legendgroup": escape(name, quote=False),
        "hovertemplate": "%{text}<br>%{x:.1f} % of its cost<br>error %{y:.3~g} of that when cut most<extra></extra>",
    }  # fmt: skip
    colour = COLOURS[number % len(COLOURS)]
    title = f"<b>{escape(name, quote=False)}</b><br>"
    line = common | {
        "mode": "lines",
        "x": [100 * c / costs[-1] for c in costs], "y": [s if s is not None and s > LEAST else None for s in shares],
        "text": [title + ("whole" if s < 0 else f"size {s}") for s in curve["sizes"]],
        "line": {"color": colour, "width": 2, "dash": DASHES[number % len(DASHES)]},
    }  # fmt: skip
    if chosen is None:
        return [line]
    whole = chosen[1] < 0
    cost = costs[-1] if whole else interpolate(curve["sizes"], costs, chosen[1])
    mark = common | {
        "mode": "markers", "showlegend": False, "x": [100 * cost / costs[-1]], "y": [max(chosen[0], LEAST)],
        "text": [title + ("chosen: left whole" if whole else f"chosen: size {chosen[1]}")],
        "hovertemplate": f"%{{text}}<br>%{{x:.1f}} % of its cost<br>error {figure(chosen[0])}<extra></extra>",
        "marker": {"size": 12, "color": colour, "symbol": SYMBOLS[number % len(SYMBOLS)],
                   "line": {"width": 1.5, "color": "#8a8f98"}},
    }  # fmt: skip
    return [line] if whole else [line, mark]


def _layout(budget: str) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": f"size of the item,<br>% of its {escape(budget)}"}, "ticksuffix": " %",
                  "rangemode": "tozero", "automargin": True},
        "yaxis": {"title": {"text": "error, share of that<br>when cut most"}, "type": "log", "automargin": True,
                  "exponentformat": "power", "dtick": 1},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "margin": {"l": 60, "r": 16, "t": 24, "b": 64}, "hovermode": "closest",
    }  # fmt: skip
