"""Progress of commands: bars on a terminal, lines with the time that is left elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

EVERY = 15.0
"""Seconds between two lines of one stage."""


@contextmanager
def bars(console: Console) -> Iterator[Any]:
    """A callback(step, total, values) that draws a bar a stage."""
    columns = (
        TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=False) as drawn:
        tasks: dict[str, Any] = {}

        def callback(step: int, total: int | None, values: Mapping[str, Any]) -> None:
            stage = str(values.get("stage", "working"))
            if stage not in tasks:
                tasks[stage] = drawn.add_task(stage, total=total)
            drawn.update(tasks[stage], completed=step, total=total)

        yield callback


@contextmanager
def lines(console: Console) -> Iterator[Any]:
    """A callback(step, total, values) that prints a line where a stage begins, and then one every 15 seconds."""
    stage, began, said = "", 0.0, 0.0

    def callback(step: int, total: int | None, values: Mapping[str, Any]) -> None:
        nonlocal stage, began, said
        name, now = str(values.get("stage", "working")), time.monotonic()
        if name != stage:
            stage, began, said = name, now, now
            console.print(name if total is None else f"{name}: {step} of {total}", soft_wrap=True, highlight=False)
        elif now - said >= EVERY:
            said = now
            console.print(progress_line(name, step, total, now - began), soft_wrap=True, highlight=False)

    yield callback


def progress_line(stage: str, step: int, total: int | None, seconds: float) -> str:
    """The line on a stage that has run for so many seconds.

    >>> progress_line("statistics", 16, 64, 30.0)
    'statistics: 16 of 64, about 2 min left'
    """
    if total is None or not step:
        return f"{stage}: {step} done"
    left = seconds / step * (total - step)
    return f"{stage}: {step} of {total}, about {f'{left / 60:.0f} min' if left >= 90 else f'{left:.0f} s'} left"
