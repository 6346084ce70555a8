"""Ends of a process, as if it was killed: at its n-th write, rename or removal, or after some time."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch

CHANGES = frozenset({"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"})
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
KILLED = 9
"""The exit status of a process that was ended here."""


class Stop:
    """Counts the changes that this process makes below some folders, and ends it at one of them.

    ``at`` counts from 1; None counts only. A file of tensors, and a text that is written in one call, count twice:
    the process ends before they are written, or when half of them is.
    """

    def __init__(self, folders: tuple[Path, ...], at: int | None, log: Path | None = None) -> None:
        self.folders, self.at, self.count, self.log = tuple(map(str, folders)), at, 0, log
        self.thread = threading.get_ident()
        serialize, write_text = safetensors.torch.serialize_file, Path.write_text  # pyright: ignore

        def save(tensors: Any, path: Any, metadata: Any = None) -> None:
            self.note(path)
            self.note(path, lambda: Path(path).write_bytes(b"half"))
            serialize(tensors, path, metadata=metadata)

        def write(path: Path, text: str, *arguments: Any, **options: Any) -> int:
            self.note(path, lambda: write_text(path, text[: len(text) // 2], encoding="utf-8"))
            return write_text(path, text, *arguments, **options)

        safetensors.torch.serialize_file = save  # pyright: ignore[reportPrivateImportUsage]
        Path.write_text = write  # pyright: ignore[reportAttributeAccessIssue]
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES:
            inside = isinstance(arguments[-1], int) and arguments[-1] != -1  # relative to a folder that is open
            self.note(Path(self.folders[0]) / str(arguments[0]) if inside else arguments[0])
        elif event == "open" and isinstance(arguments[0], str | bytes) and arguments[2] and arguments[2] & WRITES:
            self.note(arguments[0])

    def note(self, path: Any, half: Callable[[], Any] | None = None) -> None:
        """Count one change, and end the process where it is the one; ``half`` is done of it before."""
        place = str(Path(os.fsdecode(path)).absolute())
        if not place.startswith(self.folders) or threading.get_ident() != self.thread:
            return
        self.count += 1
        if self.count == self.at:
            if half is not None:
                half()
            os._exit(KILLED)


def end_after(seconds: float) -> None:
    """End this process after some seconds, wherever it is then."""

    def end() -> None:
        time.sleep(seconds)
        os._exit(KILLED)

    threading.Thread(target=end, daemon=True).start()
