"""A stretch of code in which no format may give its dense tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn

from polyad.formats import Format, kinds


@contextlib.contextmanager
def no_densifying() -> Iterator[None]:
    """Make ``to_dense`` of every kind raise AssertionError for as long as the context lasts.

    It replaces methods of the kinds, so it holds for all threads, and gives them back at the end.

    >>> from polyad.formats import Dense
    >>> with no_densifying():
    ...     Dense(torch.ones(2, 3)).linear(torch.ones(3))
    tensor([3., 3.])
    """

    def refuse(self: Format, *_: Any) -> NoReturn:
        raise AssertionError(f"{type(self).__name__}.to_dense was called; a forward pass must not densify")

    own = {kind: vars(kind)["to_dense"] for kind in _classes() if "to_dense" in vars(kind)}
    try:
        for kind in own:
            kind.to_dense = refuse
        yield
    finally:
        for kind, method in own.items():
            kind.to_dense = method


def _classes() -> set[type[Format]]:
    """Every kind and what it inherits from, down to Format."""
    return {cls for kind in kinds().values() for cls in kind.__mro__ if issubclass(cls, Format)}
