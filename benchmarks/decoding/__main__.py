"""What compressed models cost on the clock, beside transformers, other quantisers and llama.cpp.

python -m benchmarks.decoding [PATTERN …] [--again] [--list] [--show]

Each row runs in a process of its own, its two sides in turns, and is stored at once in
benchmarks/results/decoding.json; one that is there is not run again unless --again asks for it. Folders are made
once, in ~/.cache/polyad/benchmarks. Seconds are the clock's: the machine must be quiet.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from benchmarks.decoding.rows import ROWS, THREADS

RESULTS = Path(__file__).parents[1] / "results" / "decoding.json"


def run(name: str) -> str | None:
    """The row as one line of JSON, of a process of its own; None where it failed."""
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS.get(name, 1))}
    call = [sys.executable, "-m", "benchmarks.decoding", "--one", name]
    done = subprocess.run(call, stdout=subprocess.PIPE, text=True, env=environment)
    return done.stdout.splitlines()[-1] if done.returncode == 0 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--again", action="store_true", help="run rows that are stored, too")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--show", action="store_true", help="print what is stored and run nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        torch.set_num_threads(THREADS.get(given.one, 1))
        print(json.dumps(ROWS[given.one](), default=float))
        return
    chosen = [name for name in ROWS if any(fnmatch.fnmatch(name, f"*{p}*") for p in given.patterns)]
    if given.list:
        print("\n".join(chosen))
        return
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": {}}
    for name in [] if given.show else chosen:
        if name in kept["rows"] and not given.again:
            continue
        line = run(name)
        if line is None:
            print(f"{name}: failed")
            continue
        kept["rows"][name] = json.loads(line)
        kept["torch"] = torch.__version__
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    for name in chosen:
        for one in kept["rows"].get(name, {}).get("asked", ()):
            print(f"{'met   ' if one['met'] else 'MISSED'} {name}: {one['what']} {one['value']:.3f}, {one['asked']}")


if __name__ == "__main__":
    main()
