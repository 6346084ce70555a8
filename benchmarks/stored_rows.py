"""Rows of a benchmark by name, each run in a process of its own and stored at once, and not run again."""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

Rows = Mapping[str, Callable[[], dict[str, Any]]]


def arguments(description: str) -> argparse.ArgumentParser:
    """The arguments that every benchmark of rows takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--rows", metavar="NAME,NAME", help="these rows alone, by their whole names")
    parser.add_argument("--again", action="store_true", help="run rows that are stored, too")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--show", action="store_true", help="print what is stored and run nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser


def _chosen(given: argparse.Namespace, rows: Rows) -> list[str]:
    if given.rows is None:
        return [name for name in rows if any(fnmatch.fnmatch(name, f"*{p}*") for p in given.patterns)]
    names = [name.strip() for name in given.rows.split(",")]
    unknown = [name for name in names if name not in rows]
    if unknown:
        raise SystemExit(f"--rows names {', '.join(unknown)}, and the rows are {', '.join(rows)}")
    return names


def run_rows(
    given: argparse.Namespace,
    rows: Rows,
    module: str,
    results: Path,
    threads: Callable[[str], int],
    summary: Callable[[dict[str, Any]], Mapping[str, Any]] = lambda _rows: {},
) -> tuple[list[str], dict[str, Any]] | None:
    """Run the rows that the patterns name and are not stored: their names, and all that is stored.

    None where one row was run for the process that asked for it (``--one``), or rows were only named. ``summary`` is
    stored beside the rows, made of all of them.
    """
    if given.one:
        torch.set_num_threads(threads(given.one))
        print(json.dumps(rows[given.one](), default=float))
        return None
    chosen = _chosen(given, rows)
    if given.list:
        print("\n".join(chosen))
        return None
    kept = json.loads(results.read_text()) if results.exists() else {"rows": {}}
    for name in [] if given.show else chosen:
        if name in kept["rows"] and not given.again:
            continue
        environment = os.environ | {"OMP_NUM_THREADS": str(threads(name))}
        more = ["--threads", str(threads(name))] if "threads" in given else []
        call = [sys.executable, "-m", module, "--one", name, *more]
        done = subprocess.run(call, stdout=subprocess.PIPE, text=True, env=environment)
        if done.returncode:
            print(f"{name}: the process ended with {done.returncode}")
            continue
        kept["rows"][name] = json.loads(done.stdout.splitlines()[-1])
        kept |= {**summary(kept["rows"]), "torch": torch.__version__}
        results.write_text(json.dumps(kept, indent=1) + "\n")
    return chosen, kept
