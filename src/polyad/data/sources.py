"""Text as a user names it: built-in texts, plain files, tables, folders, ``datasets`` objects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from polyad.data.records import Records, join_tables, read_dataset, read_table
from polyad.data.rows import TABLES
from polyad.data.text import BUILT_IN, Text

PLAIN = ("", ".txt", ".text", ".md", ".rst")
READ = ", ".join([*(kind for kind in PLAIN if kind), *TABLES])


def read(source: Any) -> Text | Records:
    """The text of a built-in name (``stdlib``, ``sotu``), a file, a folder, or a ``datasets`` object.

    Plain text is one document. A table (.jsonl, .json, .csv, .parquet) is read by the names of its columns: ``text``,
    ``messages``, or ``prompt`` and ``completion``. Of a folder all ``*.txt`` are read, or where there are none all
    tables.
    """
    if isinstance(source, Text | Records):
        return source
    if not isinstance(source, str | os.PathLike):
        table = read_dataset(source)
        if table is None:
            raise TypeError(
                f"a text is given as {type(source).__name__}; give a name, a path, an object of datasets, "
                "or a list of mappings such as [{'text': '…'}]"
            )
        return table
    if str(source) in BUILT_IN:
        return BUILT_IN[str(source)]()
    path = Path(source)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no text at {str(source)!r}; give a file ({READ}), a folder of such, or one of {', '.join(BUILT_IN)}"
        )
    kind = path.suffix.lower()
    if kind in TABLES:
        return read_table(path)
    if kind not in PLAIN:
        raise ValueError(
            f"{path} is of a kind that is not read as text; read are {READ}, folders of them, and "
            f"{' and '.join(BUILT_IN)}. Rename a plain text to .txt"
        )
    return Text(path.stem, ((path.name, _characters(path)),))


def _folder(path: Path) -> Text | Records:
    plain = sorted(path.rglob("*.txt"))
    if plain:
        return Text(path.name, tuple((str(f.relative_to(path)), _characters(f)) for f in plain))
    tables = sorted(f for f in path.rglob("*") if f.suffix.lower() in TABLES and f.is_file())
    if not tables:
        raise FileNotFoundError(
            f"the folder {path} has no *.txt file and no table ({', '.join(TABLES)}); name a folder with "
            "one or more, or a file"
        )
    return join_tables((read_table(file) for file in tables), path.name)


def _characters(path: Path) -> str:
    raw = path.read_bytes()
    try:
        characters = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: byte {error.start} is not UTF-8; give a plain text file") from None
    if "\x00" in characters:
        raise ValueError(f"{path} is not text: it holds NUL bytes; give a plain text file")
    if not characters.strip():
        raise ValueError(f"{path} is empty; give a file with some thousands of words")
    return characters
