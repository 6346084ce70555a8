"""What takes a peer's place: functions with its signatures that compute by polyad and count their calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


class NotOffered(ValueError):  # noqa: N818 - the name of a verdict
    """An argument or a value of a peer's that polyad has nothing for."""


class Calls:
    """The number of calls of stand-ins since the test began."""

    count = 0


def stand_in(theirs: Callable[..., Any], **ignored: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a function the peer's signature. Arguments that it does not take must have the peer's default.

    ``ignored`` are those that say how the peer computes and change no result; their value is the reason.
    """

    def decorate(ours: Callable[..., Any]) -> Callable[..., Any]:
        signature, taken = inspect.signature(theirs), set(inspect.signature(ours).parameters)

        @functools.wraps(ours)
        def call(*args: Any, **named: Any) -> Any:
            Calls.count += 1
            bound = signature.bind(*args, **named)
            bound.apply_defaults()
            for name, value in bound.arguments.items():
                default = signature.parameters[name].default
                if name not in taken and name not in ignored and not _is_same(value, default):
                    raise NotOffered(f"{name}={value!r:.40}")
            return ours(**{name: value for name, value in bound.arguments.items() if name in taken})

        return call

    return decorate


def _is_same(value: Any, default: Any) -> bool:
    try:
        return value is default or bool(value == default)
    except (ValueError, RuntimeError, TypeError):
        return False


def install(module: Any, table: dict[str, Any]) -> None:
    """Put stand-ins into a test's module, under the names that it imported."""
    for name, function in table.items():
        if hasattr(module, name):
            setattr(module, name, function)
