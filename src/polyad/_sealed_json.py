"""JSON that polyad reads again, with a checksum of all that it states."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEAL = "checksum"
"""The key of the checksum; files of polyad 0.1.0 have none."""


def checksum(stated: Mapping[str, Any]) -> str:
    """The sha256 of what is stated, its own place left out.

    >>> checksum({"b": 1, "a": (2,)}) == checksum({"a": [2], "b": 1, "checksum": "x"})
    True
    """
    rest = {key: value for key, value in stated.items() if key != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def write_json(path: Path, stated: Mapping[str, Any]) -> None:
    """Write what is stated, with its checksum at the end."""
    text = json.dumps({**stated, SEAL: checksum(stated)}, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def refuse_changed(stated: Mapping[str, Any], path: Path, remedy: str) -> None:
    """Refuse JSON whose checksum is of other contents; what has no checksum passes."""
    if SEAL in stated and stated[SEAL] != checksum(stated):
        raise ValueError(f"{path} was changed since it was written: its checksum is another; {remedy}")
