"""Damaged files of every kind, held to every reader of polyad's: 100,000 cases, resumable.

python -m benchmarks.fuzz [--cases 100000] [--kinds model,peft] [--seconds 10] [--store FILE] [--show]

Each case takes one seed, damages one of its files by draws from its number, and reads it within a time limit. Counted
are readings that gave the same or other contents, refusals (an error that polyad raised, with a sentence), raw errors
of Python or of another library, hangs, and whatever was written or run outside of the case's folder. Cases run in a
child process, so that a crash costs one case; what is done is stored and not done again. Names of cases that were
raw, hung or went outside are stored with what was said; ``--case NAME NUMBER`` runs one of them again, with its
traceback.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.fuzz.run import Fuzz, show

STORE = Path(__file__).parents[1] / "results" / "fuzz.json"


def main() -> None:
    """Run what is not done yet, or show what is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--kinds", default="")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--store", type=Path, default=STORE)
    parser.add_argument("--again", action="store_true", help="forget what is stored")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--case", nargs=2, metavar=("NAME", "NUMBER"))
    asked = parser.parse_args()
    if asked.show:
        show(json.loads(asked.store.read_text(encoding="utf-8")))
        return
    fuzz = Fuzz(asked.seconds, tuple(filter(None, asked.kinds.split(","))))
    try:
        if asked.case:
            print(fuzz.one_again(asked.case[0], int(asked.case[1])))
        else:
            show(fuzz.run_all(asked.cases, asked.store, asked.again))
    finally:
        fuzz.close()


if __name__ == "__main__":
    main()
