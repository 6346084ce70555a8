"""Jobs of polyad killed at every write, rename and removal and at random moments, and given again: resumable.

python -m benchmarks.kills [--jobs compress,adapt] [--random 400] [--store FILE] [--again] [--show]

compress, adapt (one, and several), decompose, cache, convert and save run on tiny models in a child that ends itself
(``os._exit``) at its n-th change of a file, for every n, and at random moments. The same command is run again, and
must come to the result of one that nobody ended, and leave nothing else behind.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from benchmarks.kills.jobs import JOBS
from benchmarks.kills.run import Kills

STORE = Path(__file__).parents[1] / "results" / "kills.json"


def main() -> None:
    """Run what is not done yet, or show what is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--random", type=int, default=400)
    parser.add_argument("--changes", type=int, help="at most so many changes of each job, evenly spread")
    parser.add_argument("--store", type=Path, default=STORE)
    parser.add_argument("--again", action="store_true", help="forget what is stored")
    parser.add_argument("--show", action="store_true")
    asked = parser.parse_args()
    stored: dict[str, dict[str, str]] = {}
    if asked.store.is_file() and not asked.again:
        stored = json.loads(asked.store.read_text(encoding="utf-8"))
    if not asked.show:
        torch.set_num_threads(1)
        place = Path(tempfile.mkdtemp(prefix="polyad-kills-")).resolve()
        try:
            for job in asked.jobs.split(","):
                run_all(job, place, asked, stored)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    show(stored)


def run_all(job: str, place: Path, asked: argparse.Namespace, stored: dict[str, dict[str, str]]) -> None:
    """All kills of one job that are not stored yet."""
    kills, done, store = Kills(job, place), stored.setdefault(job, {}), asked.store
    count = min(asked.changes or kills.changes, kills.changes)
    changes = [kills.changes * i // count for i in range(1, count + 1)]
    points: dict[str, Any] = {f"change {n}": {"at": n} for n in changes}
    moments = kills.random_moments(-(-asked.random // len(JOBS)))
    points |= {f"moment {i}": {"after": seconds} for i, seconds in enumerate(moments)}
    for name, point in points.items():
        if name not in done:
            done[name] = kills.kill(**point)
            partial = store.with_suffix(".partial")
            partial.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
            partial.replace(store)


def show(stored: dict[str, dict[str, str]]) -> None:
    """Print the counts, and what went wrong."""
    for job, done in stored.items():
        wrong = {name: said for name, said in done.items() if said}
        changes = sum(name.startswith("change") for name in done)
        print(f"{job}: {changes} changes, {len(done) - changes} moments, {len(wrong)} not gone on from")
        for name, said in wrong.items():
            print(f"  {name}: {said}")


if __name__ == "__main__":
    main()
