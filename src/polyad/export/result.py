"""The result of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ExportResult:
    """The path that was written, its format, its size, and the figures of the comparison with the model.

    ``checked`` holds what was measured when the written file was run (the engine, tokens that agreed, the largest
    difference); it is empty where that was left out by request. ``notes`` are sentences on what changed on the way:
    tensors in another container, a head that is left out, a second file.
    """

    path: Path
    format: str
    nbytes: int
    checked: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    more: tuple[Path, ...] = ()
    """Files written beside ``path``, such as a LoRA file."""

    def to_json(self) -> dict[str, Any]:
        """This result as plain values."""
        return {
            "path": str(self.path), "format": self.format, "bytes": self.nbytes, "checked": dict(self.checked),
            "notes": list(self.notes), "more": [str(path) for path in self.more],
        }  # fmt: skip
