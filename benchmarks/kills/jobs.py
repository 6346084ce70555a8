"""The jobs that are killed, on tiny models: what they are, and the result that they must come to."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[2] / "tests"
MODEL = TESTS / "saved" / "0.1.0" / "model" / "plain" / "saved"
WORDS = TESTS / "saved" / "0.1.0" / "compressing" / "saving" / "saved" / "words.txt"
TEXTS = ("--calibrate", "words.txt", "--text", "words.txt", "--calibration-windows", 20, "--windows", 2,
         "--alternations", 0)  # fmt: skip
TRAIN = ("--data", "words.txt", "--steps", 30, "--batch", 1, "--length", 8, "--windows", 2, "--json")
PASSING = ("seconds", "peak_memory_bytes", "command", "time", "loss_curve", "rates_tried")
"""What a result says of the run itself."""
COMMANDS: dict[str, tuple[Any, ...]] = {
    "compress": ("compress", "model", "--method", "modegpt", "--keep", 0.8, "--out", "out", *TEXTS, "--report",
                 "r.html", "--json"),
    "adapt": ("adapt", "model", "--adapter", "lora:rank=2", "--out", "out", *TRAIN),
    "adapt-compare": ("adapt", "model", "--compare", "lora;loha", "--rank", 1, "--out", "out", *TRAIN),
    "decompose": ("decompose", "x.npy", "--format", "matrix,tucker", "--tol", 0.3, "--out", "out.safetensors",
                  "--json"),
    "cache": ("cache", "model", "--methods", "plain;kivi:bits=4,group=4,window=0", "--context", 16, "--scored", 4,
              "--windows", 2, "--text", "words.txt", "--calibrate", "words.txt", "--alternations", 0, "--json",
              "--report", "r.html"),
    "convert": ("convert", "model", "--to", "mla", "--rank", 4, "--rope", 2, "--heal", 30, "--calibrate", "words.txt",
                "--calibration-windows", 2, "--out", "out", "--json"),
}  # fmt: skip
JOBS = (*COMMANDS, "save")


def prepare(folder: Path) -> None:
    """The folder in which a job is run, with what it reads, and polyad's cache beside it."""
    import numpy

    shutil.rmtree(folder, ignore_errors=True)
    work = folder / "work"
    work.mkdir(parents=True)
    shutil.copytree(MODEL, work / "model")
    shutil.copy(WORDS, work / "words.txt")
    numpy.save(work / "x.npy", numpy.outer(numpy.arange(8.0), numpy.arange(6.0)) + numpy.eye(8, 6))


def run_job(job: str, folder: Path) -> None:
    """Run a job in its folder; what it prints, and what it complains of, is written beside it."""
    os.environ["POLYAD_CACHE"] = str(folder / "cache")
    complaint = io.StringIO()
    with (
        contextlib.chdir(folder / "work"),
        (folder / "said").open("w", encoding="utf-8") as said,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(complaint),
    ):
        status = _save() if job == "save" else _command(*COMMANDS[job])
    if status:
        (folder / "said").write_bytes(json.dumps({"refused": complaint.getvalue()}).encode())


def _command(*arguments: Any) -> Any:
    """Run the command line in this process; its exit status."""
    from polyad import cli

    sys.argv = ["polyad", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as stopped:
        return stopped.code
    return 0


def _save() -> int:
    """Save a compressed model; done before is done."""
    import polyad
    from polyad.cli.output import emit

    if Path("out").exists():
        polyad.load("out")
    else:
        model = polyad.load("model")
        polyad.apply(model, polyad.plan(model, "lord:rank=4", calibrate="words.txt"))
        polyad.save(model, "out")
    emit("saved")
    return 0


def outcome(folder: Path) -> dict[str, Any]:
    """What a job said and left: every file by its digest, without what tells of the run itself."""
    files = {str(f.relative_to(folder)): _digest(f) for f in sorted((folder / "work").rglob("*")) if f.is_file()}
    left = [str(f.relative_to(folder)) for f in sorted(folder.rglob(".*"))]
    return {"said": what_is_said(folder), "files": files, "left": left}


def what_is_said(folder: Path) -> Any:
    """What a job printed, None where it came to nothing."""
    text = (folder / "said").read_text(encoding="utf-8") if (folder / "said").is_file() else ""
    return _lasting(json.loads(text)) if text else None


def _digest(file: Path) -> str:
    if file.suffix == ".html":
        return "a page" if file.read_text(encoding="utf-8").rstrip().endswith("</html>") else "half a page"
    content = file.read_bytes()
    if file.suffix == ".json":
        content = json.dumps(_lasting(json.loads(content)), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(one) for key, one in value.items() if not key.endswith(PASSING)}
    return [_lasting(one) for one in value] if isinstance(value, list) else value
