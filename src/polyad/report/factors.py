"""A page of a decomposition's factors: a figure a mode, each component a line."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from polyad.report.front import COLOURS
from polyad.report.tables import table
from polyad.report.write import check, fill_template, replace_file, script_json

MOST = 12
"""Components that are drawn; the legend of more would hide the figure."""
WIDEST = 2000
"""Entries of a line that are drawn, evenly spaced."""


def write_factor_report(
    path: Path, title: str, factors: Mapping[str, Tensor], command: str, facts: Mapping[str, Any]
) -> Path:
    """Write one HTML file with a figure for each factor, by its name. Returns its path."""
    check(path)
    drawn = {name: t for name, t in factors.items() if t.ndim in (1, 2) and t.numel() > 1}
    figures = {f"factor{i}": _figure(name, t) for i, (name, t) in enumerate(drawn.items())}
    rows = [[escape(str(name)), escape(str(value))] for name, value in facts.items()]
    rows += [[f"Shape of {escape(name)}", " x ".join(map(str, t.shape))] for name, t in factors.items()]
    sections = "".join(_section(f"factor{i}", name, t) for i, (name, t) in enumerate(drawn.items()))
    most = max((t.shape[-1] for t in drawn.values() if t.ndim == 2), default=0)
    cut = f" Of {most} components the first {MOST} are drawn." if most > MOST else ""
    text = fill_template(
        "page.html", title=escape(title),
        sentence=escape(f"Each line is a component; a click in the legend hides it.{cut}"), tiles="", points="",
        figures=sections, command=escape(command),
        facts=table("What was decomposed", ["what", "value"], rows, "facts"),
        data=script_json({"figures": figures}),
    )  # fmt: skip
    return replace_file(path, text)


def _section(key: str, name: str, factor: Tensor) -> str:
    heading = f"{escape(name)}, {' x '.join(map(str, factor.shape))}"
    return (
        f"<section aria-labelledby='{key}-title'><h2 id='{key}-title'>{heading}</h2><figure>"
        f"<div class='figure' id='{key}' style='height:340px'></div><p class='empty' id='{key}-empty' hidden></p>"
        "</figure></section>"
    )


def _figure(name: str, factor: Tensor) -> dict[str, Any]:
    """The columns of a matrix as lines over its rows; a vector, such as weights, as bars."""
    values = factor.detach().double().cpu()
    if values.ndim == 1:
        data = [{"type": "bar", "x": list(range(len(values))), "y": values.tolist(), "marker": {"color": COLOURS[0]}}]
        return {"data": data, "layout": _layout("component", name, legend=False)}
    step = max(1, -(-len(values) // WIDEST))
    places = list(range(0, len(values), step))
    data = [
        {
            "type": "scatter", "mode": "lines" if len(places) > 30 else "lines+markers", "name": f"{i}", "x": places,
            "y": values[places, i].tolist(), "line": {"color": COLOURS[i % len(COLOURS)], "width": 1.6},
        }
        for i in range(min(MOST, values.shape[1]))
    ]  # fmt: skip
    return {"data": data, "layout": _layout(name, "value", legend=True)}


def _layout(across: str, up: str, *, legend: bool) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": escape(across)}, "automargin": True},
        "yaxis": {"title": {"text": escape(up)}, "automargin": True},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "margin": {"l": 60, "r": 16, "t": 24, "b": 56}, "hovermode": "closest", "showlegend": legend,
    }  # fmt: skip
