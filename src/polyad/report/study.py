"""A page that compares trials: a table, a figure for every pair of quantities, and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from polyad.evaluation.sample_record import Sample
from polyad.report.front import COLOURS, SYMBOLS, front_line, pareto_front
from polyad.report.samples import samples_section
from polyad.report.tables import table
from polyad.report.words import figure, is_number, number, short
from polyad.report.write import check, fill_template, option, replace_file, script_json


@dataclass(frozen=True)
class Quantity:
    """A quantity measured of every trial: its name, its unit, and which way is better."""

    name: str
    unit: str = ""
    """``%`` is written with a sign, ``B`` and the empty one with a prefix; any other stands behind the number."""
    more: bool = False

    def written(self, value: Any, error: Any = None) -> str:
        """A value with its standard error, as HTML."""
        if not is_number(value):
            return "–"
        if self.unit == "%":
            text = f"{value:+.2f} %"
        elif self.unit in ("", "B"):
            text = short(value, self.unit) if abs(value) >= 1000 or self.unit else figure(value)
        else:
            text = f"{figure(value)} {escape(self.unit, quote=False)}"
        return text + (f" <small>± {number(error)}</small>" if is_number(error) else "")


@dataclass(frozen=True)
class StudyTrial:
    """One trial: its values and their standard errors by quantity, or why it failed."""

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, Any] = field(default_factory=dict)
    curve: Sequence[float] = ()
    failed: str | None = None


@dataclass(frozen=True)
class Study:
    """The contents of a page. ``across`` and ``up`` are the quantities that its figure opens with."""

    title: str
    sentence: str
    command: str
    quantities: Mapping[str, Quantity]
    trials: Sequence[StudyTrial]
    across: str
    up: str
    facts: Mapping[str, Any]
    curve: tuple[str, str] = ("step", "loss")
    samples: Sequence[Sample] = ()


def write_study(path: Path, study: Study) -> Path:
    """Write one HTML file that shows a study and needs nothing beside itself. Returns its path.

    The file is written under another name and moved into place; folders above it are made. Raises
    IsADirectoryError where ``path`` is a folder and ImportError where plotly is missing.

    >>> from tempfile import TemporaryDirectory
    >>> sizes = {"size": Quantity("bytes", "B"), "loss": Quantity("loss")}
    >>> trials = [StudyTrial("plain", {"size": 8, "loss": 1})]
    >>> study = Study("caches", "two", "polyad cache", sizes, trials, "size", "loss", {})
    >>> with TemporaryDirectory() as folder:
    ...     "plain" in write_study(Path(folder) / "study.html", study).read_text()
    True
    """
    path = Path(path)
    check(path)
    good = [trial for trial in study.trials if trial.failed is None]
    curves = any(trial.curve for trial in good)
    facts = table("What was measured, and with what", ["what", "value"], [
        [escape(str(name)), escape(str(value))] for name, value in study.facts.items()
    ], "facts")  # fmt: skip
    text = fill_template(
        "page.html",
        title=escape(study.title), sentence=escape(study.sentence), tiles="", points=_table(study),
        figures=samples_section(study.samples, "now") + (_figures(study, len(good) > 1, curves) if good else ""),
        command=escape(study.command), facts=facts,
        data=script_json({"front": _fronts(study, good)} | ({"curves": _curves(study, good)} if curves else {})),
    )  # fmt: skip
    return replace_file(path, text)


def _table(study: Study) -> str:
    rows: list[list[str]] = []
    for trial in study.trials:
        if trial.failed is not None:
            reason = f"<span class='bad'>failed</span>: {escape(trial.failed)}"
            span = f"<td class='reason' colspan='{len(study.quantities)}'><div>{reason}</div></td>"
            rows.append([escape(trial.name), span])
            continue
        cells = [q.written(trial.values.get(key), trial.errors.get(key)) for key, q in study.quantities.items()]
        rows.append([escape(trial.name), *cells])
    columns = ["", *(escape(q.name) for q in study.quantities.values())]
    return table("Everything that was tried", columns, rows, "points")


def _figures(study: Study, several: bool, curves: bool) -> str:
    def menu(first: str) -> str:
        keys = [first, *(key for key in study.quantities if key != first)]
        return "".join(option(key, study.quantities[key].name) for key in keys)

    return fill_template(
        "study.html", x=menu(study.across), y=menu(study.up), hidden="" if curves else "hidden",
        alone="" if several else "hidden",
        over=escape(study.curve[0]), what=escape(study.curve[1]),
    )  # fmt: skip


def _fronts(study: Study, good: Sequence[StudyTrial]) -> dict[str, Any]:
    """A figure for every pair of quantities, by ``x|y``; or the sentence that stands in its place."""
    return {f"{a}|{b}": _front(study, good, a, b) for a in study.quantities for b in study.quantities}


def _front(study: Study, good: Sequence[StudyTrial], a: str, b: str) -> dict[str, Any] | str:
    across, up = study.quantities[a], study.quantities[b]
    shown = [(i, t) for i, t in enumerate(good) if is_number(t.values.get(a)) and is_number(t.values.get(b))]
    if not shown:
        return "Nothing was measured on these axes."
    places = [(float(t.values[a]), float(t.values[b])) for _, t in shown]
    line = pareto_front([(x, -y if up.more else y) for x, y in places], more=across.more)
    data = [front_line([places[i] for i in line])] if len(line) > 1 and a != b else []
    for (i, trial), (x, y) in zip(shown, places, strict=True):
        lines = "<br>".join(
            f"{escape(q.name, quote=False)}: {q.written(trial.values.get(k))}" for k, q in study.quantities.items()
        )
        data.append({
            "type": "scatter", "mode": "markers", "name": escape(trial.name, quote=False), "x": [x], "y": [y],
            "error_y": {"type": "data", "array": [trial.errors.get(b) or 0.0], "visible": True, "thickness": 1.2},
            "text": [f"<b>{escape(trial.name, quote=False)}</b><br>{lines}"],
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {"size": 12, "color": COLOURS[i % len(COLOURS)], "symbol": SYMBOLS[i % len(SYMBOLS)]},
        })  # fmt: skip
    return {"data": data, "layout": _layout(_axis_title(across, "right", "left"), _axis_title(up, "up", "down"))}


def _axis_title(quantity: Quantity, more: str, less: str) -> str:
    unit = f", {escape(quantity.unit, quote=False)}" if quantity.unit else ""
    return f"{escape(quantity.name, quote=False)}{unit}<br>({more if quantity.more else less} is better)"


def _layout(across: str, up: str) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": across}, "automargin": True},
        "yaxis": {"title": {"text": up}, "automargin": True},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "margin": {"l": 60, "r": 16, "t": 24, "b": 64}, "hovermode": "closest", "showlegend": True,
    }  # fmt: skip


def _curves(study: Study, good: Sequence[StudyTrial], marks: int = 20) -> dict[str, Any]:
    """The curves of all trials in so many marks, each the mean of what came since the last."""
    data = []
    for i, trial in enumerate(good):
        count = min(marks, len(trial.curve))
        ends = [(k + 1) * len(trial.curve) // count for k in range(count)]
        parts = [trial.curve[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        data.append({
            "type": "scatter", "mode": "lines+markers", "name": escape(trial.name, quote=False),
            "x": ends, "y": [sum(part) / len(part) for part in parts],
            "line": {"color": COLOURS[i % len(COLOURS)], "width": 2},
            "marker": {"size": 7, "symbol": SYMBOLS[i % len(SYMBOLS)]},
        })  # fmt: skip
    return {"data": data, "layout": _layout(*(escape(name, quote=False) for name in study.curve))}
