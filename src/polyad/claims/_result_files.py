"""The files that hold the results of claims, a handle each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypedDict

from polyad._partial import whole_file
from polyad._stated import read_stated
from polyad.claims._scripts import changed_definitions
from polyad.claims.record import Line

RESULTS = Path(__file__).parent / "results"


class _Content(TypedDict):
    """The JSON of a result."""

    lines: list[dict[str, Any]]
    definitions: list[str]
    details: dict[str, Any]


@dataclass(frozen=True)
class StoredResult:
    """The lines of a claim, further figures, and the labels of the definitions that were measured.

    ``changed`` names those definitions that are other ones now.
    """

    lines: Sequence[Line]
    details: Mapping[str, Any]
    definitions: Sequence[str]
    changed: Sequence[str] = ()

    @property
    def handle(self) -> str:
        """The paper's handle."""
        return self.lines[0].handle


def read_result(handle: str) -> StoredResult | None:
    """The stored result of a claim, None where there is none; a damaged file raises and is named."""
    path = RESULTS / f"{handle}.json"
    if not path.is_file():
        return None
    try:
        content = read_stated(path, _Content, "")
        lines = [_line(line, handle) for line in content["lines"]]
        result = StoredResult(lines, content["details"], content["definitions"])
        if not lines or not result.definitions:
            raise ValueError("it has no line, or no definition")
        if not isinstance(result.details, dict) or not all(isinstance(label, str) for label in result.definitions):
            raise TypeError("its details are no mapping, or its definitions are no list of words")
    except (ValueError, TypeError, KeyError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else f"{error}".removesuffix("; ")
        raise ValueError(f"{path} is damaged: {reason}; restore it, or run the claim again") from error
    try:
        changed = changed_definitions(handle, result.definitions)
    except SyntaxError as error:
        changed = [f"{error.filename}"]
    return replace(result, lines=[replace(line, changed_since=bool(changed)) for line in lines], changed=changed)


def write_result(result: StoredResult) -> None:
    """Write the file of a result in place of an earlier one."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{result.handle}.json"
    lines = [
        {name: value for name, value in asdict(line).items() if name != "changed_since"} for line in result.lines
    ]
    content = {"lines": lines, "definitions": result.definitions, "details": result.details}
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _line(stored: Mapping[str, Any], handle: str) -> Line:
    names = {field.name for field in fields(Line)} - {"changed_since"}
    if set(stored) != names:
        raise ValueError(f"{', '.join(sorted(names ^ set(stored)))}: missing from a line, or no field of one")
    line = Line(**{name: value for name, value in stored.items() if name != "verdict"})
    if (line.verdict, line.handle) != (stored["verdict"], handle):
        raise ValueError(
            f"a line of {line.handle!r} has the verdict {stored['verdict']!r}, and its figure says {line.verdict!r}"
        )
    return line
