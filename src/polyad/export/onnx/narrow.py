"""Numbers of a graph in the fewest bytes that hold them exactly."""

from __future__ import annotations

from typing import Any


def narrow_numbers(model: Any) -> None:
    pass
