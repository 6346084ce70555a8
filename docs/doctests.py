"""An extension of griffe for the API reference: examples of docstrings as code, and words that Markdown would eat."""

from __future__ import annotations

import griffe


class Doctests(griffe.Extension):
    """Fences every run of ``>>>`` lines with what it prints."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fence(obj.docstring.value)


def fence(text: str) -> str:
    """The docstring with each example in a code block: a paragraph that begins with ``>>>``."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(
        f"```pycon\n{part.strip(chr(10))}\n```" if part.lstrip().startswith(">>>") else part for part in paragraphs
    )
