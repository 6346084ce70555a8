"""The compressed folders that the rows measure, each made once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

KEPT = Path.home() / ".cache" / "polyad" / "benchmarks"
POLYAD = str(Path(sys.executable).with_name("polyad"))
QUICK = ("--windows", "1", "--alternations", "0", "--calibration-windows", "4", "--text", "stdlib")
RECIPES = {
    "4 bits": ("smollm2", "--select", "*", "--method", "rtn:bits=4,group=32"),
    "8 bits": ("smollm2", "--select", "*", "--method", "rtn:bits=8"),
    "low rank body": ("smollm2", "--method", "svd+rtn:bits=4,group=32", "--keep", "0.7"),
    # with the head of "4 bits": at full precision its bytes would hide those of the layers
    "low rank, 4 bits": ("low rank body", "--select", "lm_head", "--method", "rtn:bits=4,group=32"),
}


def folder(recipe: str) -> Path:
    """SmolLM2, or what another recipe made of it, compressed; its quality is hardly measured."""
    place = KEPT / f"decoding-{recipe.replace(', ', '-').replace(' ', '-')}"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        base, *options = RECIPES[recipe]
        model = str(folder(base)) if base in RECIPES else base
        call = [POLYAD, "compress", model, *options, *QUICK, "--out", str(place)]
        subprocess.run(call, check=True, stdout=sys.stderr)
    return place


def engine_file(recipe: str) -> Path:
    """The same as a file of llama.cpp."""
    place = KEPT / f"{folder(recipe).name}.gguf"
    if not place.exists():
        call = [POLYAD, "export", str(folder(recipe)), str(place), "--format", "gguf"]
        subprocess.run(call, check=True, stdout=sys.stderr)
    return place
