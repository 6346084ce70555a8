"""The page put together, and written in one move."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from polyad._partial import check_place, whole_file
from polyad.evaluation.records import CompressionRecord, Point, is_measured
from polyad.interop.plotly import javascript
from polyad.report import front, headline, heat, spectra, tables
from polyad.report.points import check_records, label
from polyad.report.samples import samples_section
from polyad.report.words import clean


def check(path: Path) -> None:
    """Refuse paths to which no report can be written, before hours of work: a folder, or a place in which no file can
    be made; and a missing plotly.

    Raises IsADirectoryError, NotADirectoryError, PermissionError and ImportError.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(
            f"report={str(path)!r} is a folder; name a file in it, such as {Path(path) / 'r.html'}"
        )
    check_place(Path(path))
    javascript()


def write(path: Path, records: Sequence[Point]) -> Path:
    """Write one HTML file, about 5 MB, that shows the records and needs nothing beside itself. Returns its path.

    ``records`` are what ``polyad compress --json`` (one) or ``polyad compare --json`` (several) print; points that
    failed stay in the page with their reason. The file is written under another name and moved into place; folders
    above it are made. Raises ValueError and TypeError where a record lacks what is shown, IsADirectoryError where
    ``path`` is a folder, ImportError where plotly is missing.

    >>> from tempfile import TemporaryDirectory
    >>> record = {"method": "modegpt", "keep": 0.8, "error": "no text"}
    >>> with TemporaryDirectory() as folder:
    ...     page = write(Path(folder) / "report.html", [record])
    ...     "no text" in page.read_text()
    True
    """
    path = Path(path)
    check_records(records)
    check(path)
    return replace_file(path, page(records))


def replace_file(path: Path, text: str) -> Path:
    """Write a file under another name and move it into place; folders above it are made. Returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def page(records: Sequence[Point]) -> str:
    """The whole page as HTML."""
    good = [r for r in records if is_measured(r)]
    return fill_template(
        "page.html",
        title=escape(headline.title(records)),
        sentence=escape(headline.sentence(records)),
        tiles=headline.tiles(good[0]) if len(records) == 1 and good else "",
        points=tables.points_table(records) if len(records) > 1 or not good else "",
        figures=_figures(good) if good else "",
        command=escape(str(next((line for r in records if (line := r.get("command"))), "not recorded"))),
        facts=_choice("facts", [tables.reproduction_table(r) for r in good]),
        data=script_json(_data(good)),
    )  # fmt: skip


def fill_template(name: str, **parts: str) -> str:
    """Fill the places of a template; the page gets its style and scripts as well."""
    text = (resources.files("polyad.report") / name).read_text(encoding="utf-8")
    if name != "page.html":
        return Template(text).substitute(parts)
    style, script = (
        (resources.files("polyad.report") / f"page.{e}").read_text(encoding="utf-8") for e in ("css", "js")
    )
    return Template(text).substitute(parts, style=style, script=script, plotly=javascript())


def script_json(data: Any) -> str:
    """JSON that can stand in a script element: no ``<`` is left in it, and no number that is not finite.

    >>> script_json({"name": "</script>", "loss": float("nan")})
    '{"name": "\\\\u003c/script>", "loss": null}'
    """
    return json.dumps(clean(data), allow_nan=False).replace("<", "\\u003c")


def _data(good: Sequence[CompressionRecord]) -> dict[str, Any]:
    return {
        "front": front.front_figures(good),
        "heat": [heat.heat(r) for r in good],
        "spectra": [spectra.spectra(r) for r in good],
    }


def _figures(good: Sequence[CompressionRecord]) -> str:
    x, y = front.axes(good)
    shown = "".join(option(str(i), label(r)) for i, r in enumerate(good))
    places = fill_template(
        "front.html",
        x="".join(option(key, name) for key, name in x.items()),
        y="".join(option(key, name) for key, name in y.items()),
    )
    return fill_template(
        "figures.html",
        front=places if len(good) > 1 else "",  # one point beside the original is what the table says
        samples=_choice("samples", [samples_section(r.get("samples") or ()) for r in good]),
        measures="".join(option(key, name) for key, name in heat.measures_by_use(good[0]).items()),
        chooser="" if len(good) > 1 else "hidden", shown=shown, height=str(heat.height(good)),
        beside=_choice("beside", [tables.comparison_table(r) for r in good]),
    )  # fmt: skip


def option(value: str, name: str) -> str:
    """An entry of a menu."""
    return f"<option value='{escape(value)}'>{escape(name)}</option>"


def _choice(name: str, parts: Sequence[str]) -> str:
    """Parts of which the menu shows one; the first until it is touched."""
    return "".join(
        f"<div data-part='{name}' data-point='{i}'{' hidden' if i else ''}>{part}</div>"
        for i, part in enumerate(parts)
    )
