"""Docstrings as Markdown."""

from __future__ import annotations

import textwrap


def fence(text: str) -> str:
    """The docstring with each example in a block of code: a paragraph that begins with ``>>>``."""
    return "\n\n".join(
        f"```pycon\n{textwrap.dedent(part).strip()}\n```" if part.lstrip().startswith(">>>") else part
        for part in text.split("\n\n")
    )
