"""An extension of griffe for the API reference: examples of docstrings stand in blocks of code."""

from __future__ import annotations

import griffe
from fences import fence


class Doctests(griffe.Extension):
    """Fences every example of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fence(obj.docstring.value)
