"""The table of architectures by job, as a page of the documentation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.architectures.jobs import JOBS

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"


def summary(stored: dict[str, Any]) -> str:
    """A line a job: how many are right of those to which it applies, and what of the rest."""
    lines = []
    for job in JOBS:
        counts = Counter(outcomes[job][0] for outcomes in stored.values() if job in outcomes)
        applies = sum(counts.values()) - counts["does not apply"]
        share = counts["right"] / applies if applies else 0
        lines.append(f"{job}: {counts['right']} of {applies} right ({share:.0%}), {counts['refused']} refused, "
                     f"{counts['wrong']} wrong")  # fmt: skip
    return "\n".join(lines)


def write_page(stored: dict[str, Any]) -> None:
    """Write docs/architectures.md."""
    raise NotImplementedError
