"""Arguments held to their types, in words."""

from __future__ import annotations

from typing import Any


def check_type(name: str, value: Any, kind: type[Any], remedy: str) -> None:
    """Refuse an argument of another type than ``kind``; ``remedy`` says what to give."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is a {type(value).__name__} and no {kind.__name__}; {remedy}")
