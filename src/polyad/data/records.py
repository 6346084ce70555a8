"""Tables by meaning: a column ``text``, conversations in ``messages``, or ``prompt`` with its ``completion``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyad.data.rows import Row, dataset_name, dataset_rows, listed_columns, read_rows
from polyad.data.text import Text

MEANINGS = "a column text, a column messages, or columns prompt and completion"
Message = Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """One example: what is read first (``prompt``, which no loss counts), and what is learned (``completion``).

    Both are characters, or both are lists of messages; a conversation that is learned whole has no prompt.
    """

    name: str
    prompt: str | tuple[Message, ...]
    completion: str | tuple[Message, ...]

    @property
    def is_chat(self) -> bool:
        """True where a chat template is needed to write it as text."""
        return not isinstance(self.completion, str)


@dataclass(frozen=True)
class Records:
    """A named table of examples that stay whole."""

    name: str
    records: tuple[Record, ...]


def read_table(path: Path) -> Text | Records:
    """A table's file by meaning."""
    return by_meaning(read_rows(path), path.stem, path.name, str(path))


def read_dataset(source: Any) -> Text | Records | None:
    """A ``datasets`` object or a list of mappings by meaning; None where the source is neither."""
    rows = dataset_rows(source)
    name = dataset_name(source)
    return None if rows is None else by_meaning(rows, name, name, f"the dataset {name!r}")


def by_meaning(rows: Sequence[Row], name: str, file: str, where: str) -> Text | Records:
    """The text or the examples that rows hold, by the names of their columns; ``where`` begins a refusal."""
    columns = {str(column) for row in rows for column in row}
    if "messages" in columns:
        return Records(name, tuple(_conversations(rows, file, where)))
    if {"prompt", "completion"} <= columns:
        return Records(name, tuple(_pairs(rows, file, where)))
    if "text" in columns:
        bodies = [(f"{file}:{i}", _characters(row, "text", i, where)) for i, row in enumerate(rows, 1)]
        documents = tuple((title, body) for title, body in bodies if body.strip())
        if not documents:
            raise ValueError(f"the column text of {where} is empty; give a file with some thousands of words")
        return Text(name, documents)
    raise ValueError(
        f"{where} has the columns {listed_columns(rows)}, none that says what to learn; name {MEANINGS} (rename "
        "yours), or save plain text as .txt"
    )


def join_tables(tables: Iterable[Text | Records], name: str) -> Text | Records:
    """Several tables of one folder as one; those that differ in kind are refused."""
    listed = list(tables)
    texts = [table for table in listed if isinstance(table, Text)]
    if len(texts) == len(listed):
        return Text(name, tuple(document for text in texts for document in text.documents))
    if texts:
        raise ValueError(
            f"the folder {name} holds tables of plain text ({texts[0].name}) and of conversations or prompts; name "
            "the files one by one"
        )
    return Records(name, tuple(r for table in listed if isinstance(table, Records) for r in table.records))


def _conversations(rows: Sequence[Row], file: str, where: str) -> Iterable[Record]:
    for i, row in enumerate(rows, 1):
        yield Record(f"{file}:{i}", (), _messages(row.get("messages"), "messages", i, where))


def _pairs(rows: Sequence[Row], file: str, where: str) -> Iterable[Record]:
    for i, row in enumerate(rows, 1):
        parts = row.get("prompt"), row.get("completion")
        if all(isinstance(part, list) for part in parts):
            prompt, completion = (
                _messages(part, name, i, where) for part, name in zip(parts, ("prompt", "completion"), strict=True)
            )
            yield Record(f"{file}:{i}", prompt, completion)
            continue
        prompt, completion = (_characters(row, name, i, where) for name in ("prompt", "completion"))
        if not completion:
            raise ValueError(f"the completion of row {i} of {where} is empty; leave the row out, or complete it")
        yield Record(f"{file}:{i}", prompt, completion)


def _characters(row: Row, column: str, number: int, where: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(
            f"{column} of row {number} of {where} is a {type(value).__name__}, where characters are read; write "
            f"it as a string"
        )
    return value


def _messages(value: Any, column: str, number: int, where: str) -> tuple[Message, ...]:
    """Messages with a role and a content each; a csv holds them as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    well_formed = isinstance(value, list) and value and all(_is_message(message) for message in value)
    if not well_formed:
        raise ValueError(
            f"{column} of row {number} of {where} is no conversation; write a list of "
            '{"role": "user", "content": "…"} and {"role": "assistant", "content": "…"}'
        )
    return tuple(value)


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("role"), str) and "content" in value
