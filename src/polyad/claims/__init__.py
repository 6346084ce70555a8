"""One script a paper: what it asserts, what is measured here, and whether it holds."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from polyad.claims import _result
from polyad.claims._result import Result

CLAIMS: dict[str, ModuleType] = {
    found.name.replace("_", "-"): import_module(f"{__name__}.{found.name}")
    for found in sorted(pkgutil.iter_modules(__path__))
    if not found.name.startswith("_")
}
"""The scripts of this folder by handle: a script has its paper's handle for a name."""


def handles() -> list[str]:
    """The papers that have a claim."""
    return sorted(CLAIMS)


def run(handle: str, *, callback: Callable[..., Any] | None = None) -> dict[str, Any]:
    """Run one claim, keep its result and return it."""
    if handle not in CLAIMS:
        raise ValueError(f"there is no claim {handle!r}; there are {', '.join(handles())}")
    return _result.run(handle, CLAIMS[handle], callback=callback)


def results() -> list[dict[str, Any]]:
    """The kept results of all claims, sorted by handle."""
    found = (_result.read(handle, CLAIMS[handle]) for handle in handles())
    return [record for record in found if record is not None]


__all__ = ["Result", "handles", "results", "run"]
