"""Runs claims, and keeps results that say something new."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from polyad._folders import cache_folder
from polyad.claims._result_files import KeptResult, read_result, write_result
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


def run(handle: str, *, confirm: bool = False, callback: Callable[..., Any] | None = None) -> Rerun:
    """Run one claim; keep its result, the failed ones too, unless it agrees with what is kept.

    A re-run agrees where every figure lies within its tolerance, and verdicts, data and all else that a line states
    are the same. It rewrites nothing; with ``confirm`` it notes, if the code had changed, that this code gives the
    result.
    Seconds and versions go to ``claims.jsonl`` in polyad's cache folder.
    """
    import_script(handle)  # or say that there is none
    definitions = measured_definitions(handle)  # before it runs: files may change meanwhile
    outcome = measure(handle, callback=callback)
    kept, damage = _read_or_reason(handle)
    news = damage or ("it was never run before" if kept is None else difference(kept.lines, outcome.lines))
    if news is not None or kept is None:
        write_result(KeptResult(outcome.lines, outcome.details, definitions))
        return Rerun(outcome.lines, True, f"written, since {news}")
    if confirm and kept.changed:
        lines = [replace(line, commit=outcome.lines[0].commit, changed_since=False) for line in kept.lines]
        write_result(replace(kept, lines=lines, definitions=definitions))
        return Rerun(outcome.lines, True, "it agrees with the kept result; noted that the code as it is now gives it")
    return Rerun(outcome.lines, False, "it agrees with the kept result; nothing is written")


def measure(handle: str, *, callback: Callable[..., Any] | None = None) -> Outcome:
    """Run one claim and keep nothing but a line in the log."""
    script, commit = import_script(handle), commit_of_checkout()
    kept, _ = _read_or_reason(handle)
    clock = time.perf_counter()
    outcome: Outcome = script.claim(callback=callback)
    seconds = time.perf_counter() - clock
    lines = [replace(line, handle=handle, commit=commit, minutes=round(seconds / 60, 2)) for line in outcome.lines]
    if isinstance(outcome, Result) and kept is not None:
        lines = [_fill_from_kept(line, old) for line, old in zip(lines, kept.lines, strict=False)]
    _log(handle, lines, seconds)
    return Outcome(lines, outcome.details)


def difference(kept: Sequence[Line], again: Sequence[Line]) -> str | None:
    """The first point in which a re-run differs from the kept lines; None where it agrees."""
    if len(kept) != len(again):
        return f"it has {len(again)} lines and had {len(kept)}"
    for old, new in zip(kept, again, strict=True):
        if not old.agrees(new.figure):
            return f"the figure {new.figure:.6g} is not {old.figure:.6g} within a tolerance of {old.tolerance:g}"
        for name in ("verdict", "data", "assertion", "relation", "bound", *LEFT_OPEN):
            if getattr(old, name) != getattr(new, name):
                return f"{name} is {getattr(new, name)!r} and was {getattr(old, name)!r}"
    return None


def conflict(kept: Sequence[Line], again: Sequence[Line]) -> str | None:
    """The reason that a re-run contradicts the kept lines; None where it may be the same experiment.

    It does where a verdict is reversed, where the data are others, and where a figure lies neither within its
    tolerance nor within the 95 % interval of the kept one.
    """
    if len(kept) != len(again):
        return f"it has {len(again)} lines and had {len(kept)}"
    for old, new in zip(kept, again, strict=True):
        if {old.verdict, new.verdict} == {"holds", "fails"}:
            return f"the verdict {old.verdict!r} is reversed"
        if old.data != new.data:
            return "the data are others"
        low, high = old.interval or (old.figure, old.figure)
        if not (old.agrees(new.figure) or low <= new.figure <= high):
            return f"the figure {new.figure:.6g} is too far from {old.figure:.6g}"
    return None


def _read_or_reason(handle: str) -> tuple[KeptResult | None, str | None]:
    """The kept result of a claim, or the reason that it cannot be read."""
    try:
        return read_result(handle), None
    except ValueError as error:
        return None, f"{error}"


def _fill_from_kept(line: Line, kept: Line) -> Line:
    """The line of a ``Result`` with what it leaves open as it is kept."""
    exact = {"error": 0.0} if kept.error == 0 else {}
    return replace(line, **{name: getattr(kept, name) for name in LEFT_OPEN}, **exact)


def _log(handle: str, lines: Sequence[Line], seconds: float) -> None:
    """Add a run to the log; a folder that cannot be written to costs the log alone."""
    from polyad.compress.run import versions

    entry = {
        "handle": handle, "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "seconds": round(seconds, 1),
        "versions": versions(), "lines": [asdict(line) for line in lines],
    }  # fmt: skip
    with contextlib.suppress(OSError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        with (cache_folder() / "claims.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry, ensure_ascii=False) + "\n")
