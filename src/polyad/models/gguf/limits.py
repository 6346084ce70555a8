"""The header of a GGUF file, walked through once, so that no count in it exceeds what the file can hold."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type; 8 is a text and 9 a list."""
TEXT, LIST, MODES = 8, 9, 8
COUNTS = ("block_count", "expert_count")


def check_header(path: Path) -> None:
    """Refuse a file whose header is cut off, or counts more than the file has bytes for."""
    with path.open("rb") as file:
        try:
            _Header(file, path.stat().st_size).walk()
        except (_TooMuchError, struct.error, OverflowError) as error:
            raise ValueError(
                f"{path} is truncated or damaged: its header states more than the file holds ({error}); get the file "
                "again"
            ) from None


class _TooMuchError(Exception):
    """A count beyond the end of the file."""


class _Header:
    """A header as it is walked through: numbers are read, and all else is passed over."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size = file, size

    def walk(self) -> None:
        """Pass over the settings and the descriptions of tensors."""
        self.file.seek(4)
        if self.number("I", 4) not in (2, 3):
            return  # of an order of bytes, or an age, that the reader itself speaks of
        tensors, settings = self.number("Q", 8), self.number("Q", 8)
        stated: set[str] = set()
        self.require(tensors * 24 + settings * 13, f"{tensors} tensors and {settings} settings")
        for _ in range(settings):
            name = self.text()
            kind = self.number("I", 4)
            if name.endswith(COUNTS) and SIZES.get(kind) == 4:
                count = self.number("I", 4)
                if count > 100 + 10 * tensors:
                    raise _TooMuchError(f"{name}={count} of {tensors} tensors")
                stated.add(name)
            else:
                self.value(kind)
        if tensors and not any(name.endswith(COUNTS[0]) for name in stated):
            raise _TooMuchError("tensors, and no count of the blocks that they are of")
        for _ in range(tensors):
            self.text()
            modes = self.number("I", 4)
            if modes > MODES:
                raise _TooMuchError(f"a tensor of {modes} modes")
            self.skip(modes * 8 + 12)

    def value(self, kind: int, depth: int = 0) -> None:
        """Pass over one value."""
        if kind == TEXT:
            self.text()
        elif kind == LIST and depth < 4:
            inner, count = self.number("I", 4), self.number("Q", 8)
            if inner in SIZES:
                self.skip(count * SIZES[inner])
                return
            self.require(count * 8, f"a list of {count}")
            for _ in range(count):
                self.value(inner, depth + 1)
        elif kind in SIZES:
            self.skip(SIZES[kind])
        else:
            raise _TooMuchError(f"a value of the type {kind}")

    def text(self) -> str:
        """Pass over a text; its last bytes, which tell settings apart."""
        length = self.number("Q", 8)
        self.require(length, f"a text of {length} bytes")
        return self.file.read(length)[-40:].decode("utf-8", "replace")

    def number(self, code: str, size: int) -> int:
        return struct.unpack(f"<{code}", self.file.read(size))[0]

    def skip(self, count: int) -> None:
        self.require(count, f"{count} bytes")
        self.file.seek(count, 1)

    def require(self, count: int, what: str) -> None:
        """Refuse what does not fit into the rest of the file."""
        if count > self.size - self.file.tell():
            raise _TooMuchError(what)
