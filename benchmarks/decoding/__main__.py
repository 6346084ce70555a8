"""What compressed models cost on the clock, beside transformers, other quantisers and llama.cpp.

python -m benchmarks.decoding [PATTERN …] [--rows NAME,NAME] [--again] [--list] [--show]

Each row runs in a process of its own, its two sides in turns, and is stored at once in
benchmarks/results/decoding.json; one that is there is not run again unless --again asks for it. Folders are made
once, in ~/.cache/polyad/benchmarks. Seconds are the clock's: the machine must be quiet.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.decoding.rows import ROWS, THREADS
from benchmarks.stored_rows import arguments, run_rows

RESULTS = Path(__file__).parents[1] / "results" / "decoding.json"


def main() -> None:
    given = arguments(__doc__ or "").parse_args()
    done = run_rows(given, ROWS, "benchmarks.decoding", RESULTS, lambda name: THREADS.get(name, 1))
    if done is None:
        return
    chosen, kept = done
    for name in chosen:
        for reason in kept["rows"].get(name, {}).get("absent", ()):
            print(f"absent {name}: {reason}")
        for one in kept["rows"].get(name, {}).get("asked", ()):
            print(f"{'met   ' if one['met'] else 'MISSED'} {name}: {one['what']} {one['value']:.3f}, {one['asked']}")


if __name__ == "__main__":
    main()
