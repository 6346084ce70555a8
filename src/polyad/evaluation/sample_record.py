"""The record of how a model continues a text before and after it was changed."""

from __future__ import annotations

from typing import TypedDict


class Sample(TypedDict):
    """The beginning of a text, and how the original and the model as it is now continue it."""

    text: str
    prompt: str
    original: str
    now: str
