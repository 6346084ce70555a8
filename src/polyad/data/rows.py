"""Rows of tables: .jsonl, .json, .csv and .parquet and ``datasets`` objects, as mappings of column to value."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

TABLES = (".jsonl", ".json", ".csv", ".parquet")
SHOWN = 8  # columns that a message lists
Row = Mapping[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows of a table in a file, by its suffix; what is no row is refused by its line."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        from polyad.interop.pyarrow import read_parquet

        rows: list[Any] = list(read_parquet(path))
    else:
        characters = _decode_file(path)
        readers = {".csv": _csv_rows, ".jsonl": _lines, ".json": _json_rows}
        rows = readers[kind](characters, path)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            what = "a value alone" if not isinstance(row, list) else "a list"
            raise ValueError(
                f"row {number} of {path} is {what}; each row must be an object with named columns, such as "
                '{"text": "…"}'
            )
    if not rows:
        raise ValueError(f"{path} holds no rows; give a file with some thousands of words")
    return rows


def dataset_rows(source: Any) -> list[Row] | None:
    """The rows of a ``datasets`` object or of a list of mappings; None where the source is neither."""
    if type(source).__module__.partition(".")[0] == "datasets":
        if isinstance(source, Mapping):
            splits = ", ".join(map(str, source))
            raise ValueError(f"the dataset has the splits {splits}; give one of them, such as dataset['train']")
        rows: list[Row] = [dict(row) for row in source]
        if not rows:
            raise ValueError("the dataset holds no rows; give one that does")
        return rows
    is_list = isinstance(source, Sequence) and not isinstance(source, str | bytes)
    if is_list and source and all(isinstance(row, Mapping) for row in source):
        return list(source)
    return None


def dataset_name(source: Any) -> str:
    """The name that a ``datasets`` object states, or what it is."""
    info = getattr(source, "info", None)
    return getattr(info, "dataset_name", None) or getattr(info, "builder_name", None) or "dataset"


def listed_columns(rows: Iterable[Row]) -> str:
    """The columns of a table for a message, the first few by name."""
    columns = list(dict.fromkeys(str(name) for row in rows for name in row))
    more = f" and {len(columns) - SHOWN} more" if len(columns) > SHOWN else ""
    return (", ".join(columns[:SHOWN]) or "none") + more


def _decode_file(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: byte {error.start} is not UTF-8; save it as UTF-8") from None


def csv_cells(path: Path) -> list[list[str]]:
    """The cells of a csv file, row by row; commas, semicolons or tabs part them."""
    characters = _decode_file(path)
    return list(csv.reader(characters.splitlines(keepends=True), dialect=_dialect(characters)))


def _dialect(characters: str) -> Any:
    csv.field_size_limit(2**31 - 1)
    first = characters.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)  # the comma where there is none

    class Table(csv.excel):
        pass

    Table.delimiter = delimiter
    return Table


def _csv_rows(characters: str, path: Path) -> list[Any]:
    lines = characters.splitlines(keepends=True)
    try:
        rows: list[Any] = list(csv.DictReader(lines, dialect=_dialect(characters)))
    except csv.Error as error:
        raise ValueError(f"{path} is no whole csv file ({error}); save it again") from None
    ragged = next((i for i, row in enumerate(rows, 2) if None in row or None in row.values()), None)
    if ragged is not None:
        raise ValueError(
            f"line {ragged} of {path} has another number of columns than its header; put values that hold a "
            "delimiter into double quotes"
        )
    return rows


def _lines(characters: str, path: Path) -> list[Any]:
    rows = []
    for number, line in enumerate(characters.split("\n"), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"line {number} of {path} is no JSON ({error}); write one object a line") from None
    return rows


def _json_rows(characters: str, path: Path) -> list[Any]:
    """The rows of a JSON array of objects; of lines of JSON too, which many files called .json hold."""
    try:
        value = json.loads(characters)
    except ValueError as error:
        if characters.lstrip().startswith("{") and "\n" in characters.strip():
            return _lines(characters, path)
        raise ValueError(f"{path} is no JSON ({error}); save it again, or name a plain text .txt") from None
    if isinstance(value, Mapping) and len(lists := [v for v in value.values() if isinstance(v, list)]) == 1:
        return lists[0]  # {"data": [...]}
    if isinstance(value, list):
        return value
    return [value]
