"""A job killed and given again, in child processes of one that has imported everything."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from pathlib import Path
from typing import Any

from benchmarks.kills.jobs import outcome, prepare, run_job, what_is_said
from benchmarks.kills.stops import KILLED, Stop, end_after


def in_child(job: str, folder: Path, *, at: int | None = None, after: float | None = None) -> tuple[int, int]:
    """Run a job in a child, ended at its change number ``at`` or ``after`` seconds; its status and its changes."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with (
            contextlib.suppress(BaseException),
            Path(os.devnull).open("w") as nothing,
            contextlib.redirect_stderr(nothing),
        ):
            if after is not None:
                end_after(after)
            stop = Stop((folder / "work", folder / "cache"), at)
            run_job(job, folder)
            os.write(writer, str(stop.count).encode())
            os._exit(0)
        os._exit(1)
    os.close(writer)
    count = os.read(reader, 20)
    os.close(reader)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(count or 0)


class Kills:
    """One job: what it comes to when nobody ends it, and the number of its changes and seconds."""

    def __init__(self, job: str, place: Path) -> None:
        self.job, self.folder = job, place / job
        prepare(self.folder)
        with Path(os.devnull).open("w") as nothing, contextlib.redirect_stderr(nothing):
            run_job(job, self.folder)  # here, so that no child imports anything
        prepare(self.folder)
        clock = time.perf_counter()
        status, self.changes = in_child(job, self.folder)
        self.seconds = time.perf_counter() - clock
        self.right = outcome(self.folder)
        if status or refusal(self.right):
            raise RuntimeError(f"{job} does not run: {self.right['said']}")

    def kill(self, *, at: int | None = None, after: float | None = None) -> str:
        """End the job at a change or after some seconds, run it again; what differs from the right result, or ""."""
        prepare(self.folder)
        status, _ = in_child(self.job, self.folder, at=at, after=after)
        before = what_is_said(self.folder)
        if status not in (0, KILLED):
            return f"the first run failed with status {status}"
        again, _ = in_child(self.job, self.folder)
        result = outcome(self.folder)
        if before == self.right["said"] and "already" in refusal(result):
            result["said"] = self.right["said"]  # the first run had said all that it had to say
        return "" if again == 0 and result == self.right else difference(self.right, result)

    def random_moments(self, count: int, seed: int = 0) -> list[float]:
        """Seconds, spread over the time that the job takes."""
        draw = random.Random(f"{self.job} {seed}")
        return [draw.uniform(0, self.seconds) for _ in range(count)]


def refusal(result: dict[str, Any]) -> str:
    """What a run complained of; "" where it came to its end."""
    said = result["said"]
    return "the run died" if said is None else said.get("refused", "") if isinstance(said, dict) else ""


def difference(right: dict[str, Any], result: dict[str, Any]) -> str:
    """In which way a result differs, in a line."""
    if refusal(result):
        return f"refused: {refusal(result)}"[:300]
    parts = [f"left over {path}" for path in result["left"] if path not in right["left"]]
    names = sorted(right["files"].keys() | result["files"].keys())
    parts += [f"{name} differs" for name in names if right["files"].get(name) != result["files"].get(name)]
    if right["said"] != result["said"]:
        parts.append("what is printed differs: " + _first_difference(right["said"], result["said"]))
    return "; ".join(parts)[:300] or "nothing that is compared"


def _first_difference(one: Any, other: Any, name: str = "") -> str:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return next((_first_difference(one[k], other[k], f"{name}.{k}") for k in one if one[k] != other[k]), "")
    return f"{name}: {json.dumps(one)[:60]} and {json.dumps(other)[:60]}"
