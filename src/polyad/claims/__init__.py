"""A script a paper, by family: what the paper asserts, what is measured here, and whether it holds."""

from __future__ import annotations

from polyad.claims._rerun import Rerun, conflict, measure, run
from polyad.claims._result_files import StoredResult, read_result
from polyad.claims._scripts import SCRIPTS
from polyad.claims.record import Line, Outcome


def handles() -> list[str]:
    """The papers that have a claim."""
    return sorted(SCRIPTS)


def results() -> list[StoredResult]:
    """The stored results of all claims, sorted by handle, without those whose file is damaged."""
    return _read_all()[0]


def unreadable_results() -> dict[str, str]:
    """The reason that a result cannot be read, by handle, for those whose file is damaged."""
    return _read_all()[1]


def _read_all() -> tuple[list[StoredResult], dict[str, str]]:
    readable: list[StoredResult] = []
    reasons: dict[str, str] = {}
    for handle in handles():
        try:
            result = read_result(handle)
        except ValueError as error:
            reasons[handle] = f"{error}"
        else:
            readable += [] if result is None else [result]
    return readable, reasons


__all__ = [
    "Line",
    "Outcome",
    "Rerun",
    "StoredResult",
    "conflict",
    "handles",
    "measure",
    "results",
    "run",
    "unreadable_results",
]
