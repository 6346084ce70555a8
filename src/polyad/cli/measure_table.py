"""The user's own measure in a table: the value, the original's, the difference with its error, the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polyad.cli.output import number, out, table

if TYPE_CHECKING:
    from polyad.evaluation.records import MeasureRecord


def measure_table(result: MeasureRecord, title: str) -> None:
    """Print the result of a measure; what is not known is a dash, never a zero."""
    way = "larger" if result["larger"] else "smaller"
    if result["original"] is None:
        columns = [result["name"], "± error", "examples"]
        row = [number(result["value"], 4), number(result["error"], 4), _count(result)]
    else:
        columns = [result["name"], "original", "difference", "± error", "examples"]
        row = [number(result["value"], 4), number(result["original"], 4), number(result["difference"], 4),
               number(result["error"], 4), _count(result)]  # fmt: skip
    out.print(f"{title}: {result['name']}, {way} is better", soft_wrap=True)
    table("", columns, [row])
    if result["verdict"] is not None:
        out.print(f"{result['name']}: {verdict_words(result)}", soft_wrap=True)


def measure_title(result: MeasureRecord) -> str:
    """Words for a table's title: which way a measure is better, and the original's value."""
    way = "larger" if result["larger"] else "smaller"
    return f"; {result['name']}: {way} is better, the original's is {number(result['original'], 4)}"


def measure_cell(result: MeasureRecord) -> str:
    """The value of a measure in a column, with the error of its difference from the original's."""
    error = "" if result["error"] is None else f" ± {number(result['error'], 4)}"
    return f"{number(result['value'], 4)}{error}"


def verdict_words(result: MeasureRecord) -> str:
    """The verdict on a measure in words."""
    if result["verdict"] == "no clear difference":
        return "no clear difference from the original"
    return f"{result['verdict']} than the original, beyond what chance over examples explains"


def _count(result: MeasureRecord) -> str:
    return "–" if result["examples"] is None else str(result["examples"])
