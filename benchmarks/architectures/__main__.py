"""``python -m benchmarks.architectures``: run what is not there yet, show what came out."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from benchmarks.architectures.build import Architecture, architectures
from benchmarks.architectures.jobs import JOBS, Case, DoesNotApply, WrongResult
from benchmarks.architectures.page import summary, write_page

RESULTS = Path(__file__).parent.parent / "results" / "architectures.json"
SECONDS = 240
"""Processor time that one architecture may take for all its jobs."""


def outcome(case: Case, job: str, verbose: bool = False) -> list[str]:
    """The verdict and its reason: right, does not apply, refused or wrong."""
    try:
        remark = JOBS[job](case)
    except DoesNotApply as reason:
        return ["does not apply", str(reason)]
    except WrongResult as reason:
        return ["wrong", str(reason)]
    except Exception as error:
        if verbose:
            traceback.print_exc()
        kind = "refused" if isinstance(error, ValueError) and _is_ours(error) else "wrong"
        return [kind, str(error)[:400] if kind == "refused" else f"{type(error).__name__}: {str(error)[:300]}"]
    return ["right", remark or ""]


def _is_ours(error: BaseException) -> bool:
    """True for what polyad itself raises."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and ("/polyad/" in frames[-1].filename or frames[-1].filename == __file__ or
                             frames[-1].name == "generate")  # fmt: skip


def run(architecture: Architecture, jobs: list[str], verbose: bool = False) -> dict[str, Any]:
    """All jobs of one architecture."""
    try:
        model = architecture.model()
        with torch.no_grad():
            Case(architecture, Path()).logits(model)
    except Exception as error:
        return {"does not build": f"{type(error).__name__}: {str(error).strip()[:200]}"}
    outcomes = {}
    for job in jobs:
        folder = Path(tempfile.mkdtemp(prefix="architectures-"))
        try:
            outcomes[job] = outcome(Case(architecture, folder), job, verbose)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return outcomes


def run_apart(architecture: Architecture, jobs: list[str]) -> dict[str, Any]:
    """The same in a process of its own, which may crash or take too long."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        with os.fdopen(write, "w") as stream, open(os.devnull, "w") as nothing:  # noqa: PTH123
            sys.stdout = sys.stderr = nothing
            json.dump(run(architecture, jobs), stream)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    _, status = os.waitpid(child, 0)
    return json.loads(text) if text else {job: ["wrong", f"the process ended with {status}"] for job in jobs}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.architectures", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="model types or classes, run again")
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--again", action="store_true", help="run what is there again, unless all of it is right")
    parser.add_argument("--verbose", action="store_true", help="in this process, with tracebacks")
    parser.add_argument("--page", action="store_true", help="write docs/architectures.md from what is there")
    parser.add_argument("--results", type=Path, default=RESULTS)
    told = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    stored: dict[str, Any] = json.loads(told.results.read_text()) if told.results.is_file() else {}
    for architecture in architectures():
        key = f"{architecture.kind} {architecture.model_type} {architecture.name}"
        if told.only and not {architecture.model_type, architecture.name, architecture.kind} & set(told.only):
            continue
        jobs = [job for job in told.jobs if _is_due(stored.get(key, {}), job, bool(told.only), told.again)]
        if told.page or not jobs:
            continue
        outcomes = run(architecture, jobs, True) if told.verbose else run_apart(architecture, jobs)
        stored[key] = outcomes if "does not build" in outcomes else stored.get(key, {}) | outcomes
        print(key, {job: value for job, value in outcomes.items() if value[0] != "right"} or "right", flush=True)
        told.results.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
    print(summary(stored))
    if told.page:
        write_page(stored)


def _is_due(outcomes: dict[str, Any], job: str, named: bool, again: bool) -> bool:
    if "does not build" in outcomes:
        return named or again
    return named or job not in outcomes or (again and outcomes[job][0] in ("wrong", "refused"))


if __name__ == "__main__":
    main()
