"""Output of commands: tables and progress for people, one JSON value for programs, a sentence for errors."""

from __future__ import annotations

import json
import math
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from polyad._figures import number as number
from polyad._figures import share as share

out = Console(markup=False)  # what is printed holds brackets of its own
err = Console(stderr=True, markup=False)


@dataclass
class Shown:
    """The settings of what is shown: no progress, or the whole of an error."""

    quiet: bool = False
    debug: bool = False
    folder: Any = None
    """The output folder, where the command itself chose it."""
    settled: Mapping[str, Any] = field(default_factory=dict)
    """Options that were left open and what the command took for them, by parameter."""
    context: Any = None
    """The parser's, of the command that runs."""


shown = Shown()


def emit(value: Any) -> None:
    """Print one JSON value, and nothing else, on standard output."""
    sys.stdout.write(json.dumps(_without_nan(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()  # a kill that follows takes nothing of it away


def _without_nan(value: Any) -> Any:
    """The value with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _without_nan(v) for k, v in value.items()}
    return [_without_nan(v) for v in value] if isinstance(value, list | tuple) else value


def complain(sentence: str) -> None:
    """Say on standard error what went wrong."""
    err.print(Text.assemble(("error: ", "bold red"), sentence), soft_wrap=True)


@contextmanager
def say_warnings() -> Iterator[None]:
    """Say warnings of the package in a line each on standard error, without the place in the code."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for message in dict.fromkeys(str(warning.message) for warning in caught if warning.category is UserWarning):
        note(message)


def command() -> str:
    """The command that is running, to be run again by whoever reads its record."""
    return shlex.join(["polyad", *sys.argv[1:]])


@contextmanager
def progress() -> Iterator[Any]:
    """A callback(step, total, values) that shows on standard error how far the work is; silent with --quiet."""
    if shown.quiet:
        yield lambda _step, _total, _values: None
        return
    from polyad.cli.progress import bars, lines

    with bars(err) if err.is_terminal else lines(err) as callback:
        yield callback


def note(sentence: str) -> None:
    """Say on standard error what is being done; not with --quiet."""
    if not shown.quiet:
        err.print(sentence, soft_wrap=True, highlight=False)


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """A table on standard output; columns of figures are right aligned, columns of words left."""
    grid = Table(title=title, title_justify="left", header_style="bold")
    for i, column in enumerate(columns):
        figures = all(not row[i] or row[i][0] in "0123456789-–+" for row in rows)
        grid.add_column(column, justify="right" if figures and i else "left", overflow="fold")
    for row in rows:
        grid.add_row(*row)
    out.print(grid)
