"""llama.cpp, by the package ``xllamacpp``, in a process of its own: it may end its process over a file."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["engine_name", "is_installed", "run_engine"]

PROGRAM = Path(__file__).with_name("_gguf_process.py")
TIMEOUT = 3600


def is_installed() -> bool:
    """True where the engine can be imported."""
    return importlib.util.find_spec("xllamacpp") is not None


def engine_name() -> str:
    """The engine with its version."""
    return f"llama.cpp (xllamacpp {importlib.metadata.version('xllamacpp')})"


def run_engine(request: Mapping[str, Any]) -> dict[str, Any]:
    """The engine's answers: see ``_gguf_process`` for what is asked.

    Raises ValueError with the engine's own words where it refuses the file.
    """
    with tempfile.TemporaryDirectory() as place:
        asked, answered = Path(place, "asked.json"), Path(place, "answered.json")
        asked.write_text(json.dumps(request), encoding="utf-8")
        # by its path, so that the process imports the engine alone
        ran = subprocess.run(
            [sys.executable, str(PROGRAM), str(asked), str(answered)],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        if ran.returncode or not answered.is_file():
            raise ValueError(f"llama.cpp does not run this file: {_reason(ran.stderr.decode(errors='replace'))}")
        return json.loads(answered.read_text(encoding="utf-8"))


def _reason(log: str) -> str:
    """The line of a log that says what was wrong."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    wrong = [line for line in lines if "error" in line.lower() or "assert" in line.lower() or "fail" in line.lower()]
    return (wrong or lines or ["it ended without a word"])[0][:300]
