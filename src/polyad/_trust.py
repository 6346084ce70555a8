"""Trust in the Python code of models that is given for a while, as a command's option gives it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_trust: ContextVar[bool] = ContextVar("trust", default=False)


@contextmanager
def trusting(trust: bool) -> Iterator[None]:
    """Within it, in this thread, models that are loaded without saying otherwise are trusted, or not."""
    token = _trust.set(trust)
    try:
        yield
    finally:
        _trust.reset(token)


def trust_of(said: bool | None) -> bool:
    """The answer that was given, or else the one that holds for a while; False by default."""
    return _trust.get() if said is None else said
