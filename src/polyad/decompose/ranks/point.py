"""One format at one size: what was asked, what came out, and the decomposition that makes it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from polyad.formats import Format


@dataclass(frozen=True)
class Point:
    """One format at one size: relative Frobenius error, numbers and bytes stored, seconds taken; or why it failed."""

    format: str
    asked: Mapping[str, Any]
    made: Format | None
    error: float | None
    seconds: float
    reason: str | None = None
    left_out: bool = False
    """True where only the time that it would take stood against it."""

    @property
    def parameters(self) -> int | None:
        return None if self.made is None else self.made.parameters

    @property
    def nbytes(self) -> int | None:
        return None if self.made is None else self.made.nbytes


class _OutOfTimeError(Exception):
    """Raised between two steps of a decomposition that takes too long."""


def decompose_point(
    name: str,
    function: Callable[..., Format],
    x: Tensor,
    asked: Mapping[str, Any],
    *,
    mask: Tensor | None = None,
    limit: float | None = None,
    **arguments: Any,
) -> Point:
    """Decompose x and measure error, size and time; what refuses or takes over ``limit`` seconds says so."""
    clock = time.perf_counter()
    given = {**asked, **arguments} | ({} if mask is None else {"mask": mask})
    if limit is not None and "callback" in inspect.signature(function).parameters:
        given["callback"] = _watch(clock + limit)
    try:
        result = function(x, **given)
    except ValueError as refused:
        return Point(name, asked, None, None, time.perf_counter() - clock, str(refused))
    except _OutOfTimeError:
        seconds = time.perf_counter() - clock
        return Point(name, asked, None, None, seconds, f"left out, it took over {limit:.0f} seconds", True)
    seconds = time.perf_counter() - clock
    return Point(name, asked, result, result.error(x, mask=mask), seconds)


def _watch(end: float) -> Callable[[int, int | None, dict[str, Any]], None]:
    def callback(_step: int, _total: int | None, _values: dict[str, Any]) -> None:
        if time.perf_counter() > end:
            raise _OutOfTimeError

    return callback
