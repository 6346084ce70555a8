"""The speed table of the decompositions: every row against its floor, its peers and what it must reach.

python -m benchmarks.decompositions [PATTERN …] [--threads 1 2] [--again] [--list] [--show]

Each row runs in a process of its own and is stored at once with all its samples in
benchmarks/results/decompositions.json. A row that is there for the code that it uses is not run again unless --again
asks for it, so an interrupted run goes on where it stopped. PATTERN chooses rows whose name contains it. Peers that
are not installed (`make peers`) are left out with a sentence.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import hashlib
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polyad
from polyad.claims.definitions import Sources

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "decompositions.json"
PARTS = ("decompose_cp", "decompose_cpx", "decompose_tucker", "decompose_tt", "decompose_networks")
Row = dict[str, Any]


def rows() -> dict[str, tuple[str, Callable[[], Row]]]:
    """All rows by name, in the order of the table, each with the part that it stands in."""
    return {
        name: (part, row)
        for part in PARTS
        for name, row in importlib.import_module(f"benchmarks.{part}").ROWS.items()
    }


@functools.cache
def source(part: str) -> str:
    """A hash of a part's definitions and of all that they use, of these files and of polyad, but for refusals."""
    sources = Sources({"benchmarks": HERE, "polyad": Path(polyad.__file__).parent})
    file = f"benchmarks.{part}"
    roots = [(file, name) for name in sources.module(file).statements]
    used = sources.reachable(roots, lambda _, module: module not in ("polyad._card", "polyad._check"))
    return hashlib.sha256("\n".join(sorted(definition.digest for definition in used)).encode()).hexdigest()[:16]


def machine() -> Row:
    import torch

    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    return {
        "processor": model, "cores": os.cpu_count(), "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__, "python": platform.python_version(),
    }  # fmt: skip


def run(name: str, threads: int) -> Row:
    """One row in a process of its own with so many threads for everyone."""
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = os.environ | dict.fromkeys(variables, str(threads))
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    started, load = time.time(), os.getloadavg()[0]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.decompositions", "--one", name],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    if done.returncode:
        return {"failed": f"the process ended with {done.returncode}"}
    found = json.loads(done.stdout.splitlines()[-1])
    return found | {"seconds_taken": time.time() - started, "load_before": load}


def summed(row: Row) -> Row:
    """Medians and interquartile ranges beside the samples."""
    from benchmarks.measuring import median, spread

    samples = row.get("samples", {})
    row["median"] = {name: median(values) for name, values in samples.items()}
    row["interquartile_range"] = {name: spread(values) for name, values in samples.items()}
    return row


def printed(key: str, row: Row) -> None:
    if "failed" in row:
        print(f"{key}: FAILED, {row['failed']}")
        return
    times = ", ".join(
        f"{name} {1e3 * value:.4g} ± {1e3 * row['interquartile_range'][name]:.2g}"
        for name, value in row["median"].items()
    )
    print(f"{key}: ms {times}")
    for bar in row["asked"]:
        print(f"    {'met   ' if bar['met'] else 'MISSED'} {bar['what']} {bar['value']:.4g}, {bar['asked']}")
    for sentence in row.get("absent", []):
        print(f"    {sentence}")
    print(f"    {json.dumps(row.get('facts', {}), default=str)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--again", action="store_true", help="run rows that are stored, too")
    parser.add_argument("--list", action="store_true", help="name the rows")
    parser.add_argument("--show", action="store_true", help="print what is stored and run nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(summed(rows()[asked.one][1]()), default=float))
        return
    stored = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": {}}
    for name, (part, _) in rows().items():
        if not any(fnmatch.fnmatch(name, f"*{pattern.strip('*')}*") for pattern in asked.patterns):
            continue
        now = source(part)
        for threads in asked.threads:
            key = f"{name}, {threads} thread{'s' if threads > 1 else ''}"
            known = stored["rows"].get(key)
            if asked.list:
                print(key)
            elif known and (asked.show or (known["source"] == now and "failed" not in known and not asked.again)):
                printed(key if known["source"] == now else f"{key} (of other code)", known)
            elif not asked.show:
                row = run(name, threads) | {"source": now, "machine": machine()}
                stored["rows"][key] = row
                RESULTS.write_text(json.dumps(stored, indent=1) + "\n")
                printed(key, row)


if __name__ == "__main__":
    main()
