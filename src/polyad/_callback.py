"""The type of functions that are told of progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Callback = Callable[[int, int | None, dict[str, Any]], object]
"""``callback(step, total, values)`` after every step: the steps done, all of them or None where their number is not
known, and named values, such as the error."""
