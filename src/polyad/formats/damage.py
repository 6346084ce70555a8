"""Numbers of a format that were read from a file, held to what such a format can have."""

from __future__ import annotations

from polyad.formats._tree import parts
from polyad.formats.format import Format
from polyad.formats.stored.sparse import Sparse


def refuse_damaged(format: Format) -> None:
    """Refuse indices that lead out of the tensor, of this format and of those in it."""
    if isinstance(format, Sparse):
        format.refuse_places()
    for _, part in parts(format):
        if isinstance(part, Format):
            refuse_damaged(part)
