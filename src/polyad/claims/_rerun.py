"""Runs claims, and stores results that say something new."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from polyad._callback import Callback
from polyad._folders import cache_folder
from polyad.claims._result_files import StoredResult, read_result, write_result
from polyad.claims._scripts import commit_of_checkout, import_script, measured_definitions
from polyad.claims.record import Line, Outcome, Result

LEFT_OPEN = ("seeds", "windows", "rival", "control", "tolerance")
"""Fields that a ``Result`` does not state."""


@dataclass(frozen=True)
class Rerun:
    """The lines that a run gave, whether anything was written, and a sentence that says why or why not."""

    lines: Sequence[Line]
    written: bool
    because: str


def run(handle: str, *, confirm: bool = False, callback: Callback | None = None) -> Rerun:
    """Run one claim; store its result, the failed ones too, unless it agrees with the stored one.

    A re-run agrees where every figure lies within its tolerance, and verdicts, data and all else that a line states
    are the same. It rewrites nothing; with ``confirm`` it notes, if the code had changed, that this code gives the
    result. Seconds and versions go to ``claims.jsonl`` in polyad's cache folder.
    """
    import_script(handle)  # or say that there is none
    definitions = measured_definitions(handle)  # before it runs: files may change meanwhile
    outcome = measure(handle, callback=callback)
    before, damage = _read_or_reason(handle)
    if before is None:
        write_result(StoredResult(outcome.lines, outcome.details, definitions))
        return Rerun(outcome.lines, True, f"written: {damage or 'it had no result'}")
    news = difference(before.lines, outcome.lines)
    if news is not None:
        write_result(StoredResult(outcome.lines, outcome.details, definitions))
        return Rerun(outcome.lines, True, f"written: {news}")
    if confirm and before.changed:
        lines = [replace(line, commit=outcome.lines[0].commit) for line in before.lines]
        write_result(replace(before, lines=lines, definitions=definitions))
        return Rerun(
            outcome.lines, True, "it agrees with the stored result; noted that the code as it is now gives it"
        )
    return Rerun(outcome.lines, False, "it agrees with the stored result; nothing is written")


def measure(handle: str, *, callback: Callback | None = None) -> Outcome:
    """Run one claim and write nothing but a line in the log."""
    script, commit = import_script(handle), commit_of_checkout()
    before, _ = _read_or_reason(handle)
    clock = time.perf_counter()
    outcome: Outcome = script.claim(callback=callback)
    seconds = time.perf_counter() - clock
    lines = [replace(line, handle=handle, commit=commit, minutes=round(seconds / 60, 2)) for line in outcome.lines]
    if isinstance(outcome, Result) and before is not None:
        lines = [_take_over(line, old) for line, old in zip(lines, before.lines, strict=False)]
    _log(handle, lines, seconds)
    return Outcome(lines, outcome.details)


def difference(before: Sequence[Line], again: Sequence[Line]) -> str | None:
    """The first point in which a re-run differs from the stored lines; None where it agrees."""
    if len(before) != len(again):
        return f"it has {len(again)} lines and had {len(before)}"
    for old, new in zip(before, again, strict=True):
        if not old.agrees(new.figure):
            return f"the figure {new.figure:.6g} is not {old.figure:.6g} within a tolerance of {old.tolerance:g}"
        for name in ("verdict", "data", "assertion", "relation", "bound", *LEFT_OPEN):
            if getattr(old, name) != getattr(new, name):
                return f"{name} is {getattr(new, name)!r} and was {getattr(old, name)!r}"
    return None


def conflict(before: Sequence[Line], again: Sequence[Line]) -> str | None:
    """The reason that a re-run contradicts the stored lines; None where it may be the same experiment.

    It does where a verdict is reversed, and where a figure lies neither within its tolerance nor within the 95 %
    interval of the stored one. Hashes of data may differ: data that are computed end in other digits on another
    processor.
    """
    if len(before) != len(again):
        return f"it has {len(again)} lines and had {len(before)}"
    for old, new in zip(before, again, strict=True):
        if {old.verdict, new.verdict} == {"holds", "fails"}:
            return f"the verdict {old.verdict!r} is reversed"
        low, high = old.interval or (old.figure, old.figure)
        if not (old.agrees(new.figure) or low <= new.figure <= high):
            return f"the figure {new.figure:.6g} is too far from {old.figure:.6g}"
    return None


def _read_or_reason(handle: str) -> tuple[StoredResult | None, str | None]:
    """The stored result of a claim, or the reason that it cannot be read."""
    try:
        return read_result(handle), None
    except ValueError as error:
        return None, f"{error}"


def _take_over(line: Line, stored: Line) -> Line:
    """The line of a ``Result`` with what it leaves open as it is stored."""
    exact = {"error": 0.0} if stored.error == 0 else {}
    return replace(line, **{name: getattr(stored, name) for name in LEFT_OPEN}, **exact)


def _log(handle: str, lines: Sequence[Line], seconds: float) -> None:
    """Add a run to the log; a folder that cannot be written to costs the log alone."""
    from polyad.compress.result import versions

    entry = {
        "handle": handle, "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "seconds": round(seconds, 1),
        "versions": versions(), "lines": [asdict(line) for line in lines],
    }  # fmt: skip
    with contextlib.suppress(OSError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        with (cache_folder() / "claims.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry, ensure_ascii=False) + "\n")
