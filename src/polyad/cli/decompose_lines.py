"""Lines of ``polyad decompose``: each point when it is known, and the sentences below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polyad.cli.output import number, out, share

WIDTHS = (8, 27, 10, 14, 10, 8)
HEAD = ("format", "asked", "error", "bytes", "of file's", "seconds")


def print_head(title: str) -> None:
    """The title of the table and the names of its columns."""
    out.print(title, soft_wrap=True)
    out.print(_line(HEAD), style="bold", soft_wrap=True)


def print_point(point: Any, stored: int, modes: tuple[str, ...] | None) -> None:
    """One point as a line; what has no result says why."""
    asked = ", ".join(f"{key} {_written(key, value, modes)}" for key, value in point.asked.items())
    if point.made is None:
        reason = f"{point.reason}; --thorough takes it" if point.left_out else point.reason
        out.print(f"{point.format}{f' ({asked})' if asked else ''}: {reason}", soft_wrap=True)
        return
    cells = (point.format, asked, f"{point.error:.2e}", number(point.nbytes, 0), share(point.nbytes, stored),
             number(point.seconds, 2))  # fmt: skip
    out.print(_line(cells), soft_wrap=True)


def _written(key: str, value: Any, modes: tuple[str, ...] | None) -> str:
    if key == "rows":
        names = [str(mode) if modes is None else modes[mode] for mode in value]
        return " x ".join(names)
    return (
        f"{value:g}"
        if isinstance(value, int | float)
        else str(value)
        if isinstance(value, str)
        else "x".join(map(str, value))
    )


def _line(cells: Sequence[str]) -> str:
    left = [cell.ljust(width - 1) + " " for cell, width in zip(cells[:2], WIDTHS[:2], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(cells[2:], WIDTHS[2:], strict=True)]
    return "".join((*left, *right)).rstrip()


def verdict(points: Sequence[Any], best: Any, tol: float, budget: int | None, stored: int) -> str:
    """A sentence on the smallest format that is exact enough, or on the nearest to it.

    Where nothing is smaller than the file, that comes first.
    """
    exact = [p for p in points if p.made is not None and p.error <= tol]
    if best is not None:
        size = f"{number(best.nbytes, 0)} bytes, {share(best.nbytes, stored)} of the file's"
        if best.nbytes >= stored:
            nothing = f"nothing within {tol:g} is smaller than the file; the smallest, {best.format}, takes {size}"
            return nothing + _next_best(points, stored)
        return f"smallest within {tol:g}: {best.format}, {size}"
    if budget is not None and exact:
        least = min(exact, key=lambda p: p.nbytes)
        smallest = f"the smallest, {least.format}, takes {number(least.nbytes, 0)}"
        return f"nothing within {tol:g} fits into {number(budget, 0)} bytes; {smallest}"
    return f"no format came within {tol:g}"


def _next_best(points: Sequence[Any], stored: int) -> str:
    """The words on the most exact format that is smaller than the file, where there is one."""
    smaller = [p for p in points if p.made is not None and p.nbytes < stored]
    if not smaller:
        return ""
    best = min(smaller, key=lambda p: p.error)
    return f". Of what is smaller, {best.format} is nearest: error {best.error:.2g} in {share(best.nbytes, stored)}"


def record(point: Any) -> dict[str, Any]:
    """A point as plain values."""
    return {
        "format": point.format, **point.asked, "error": point.error, "parameters": point.parameters,
        "bytes": point.nbytes, "seconds": point.seconds, "rank": getattr(point.made, "rank", None),
        "reason": point.reason, "left_out": point.left_out,
    }  # fmt: skip
