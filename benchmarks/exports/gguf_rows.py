"""SmolLM2 in every container: bytes, perplexity and speed of our file beside llama.cpp's own."""

from __future__ import annotations

import functools
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from benchmarks.exports.llama import CHUNKS, CONTEXT, perplexity, quantize_like, tokens_a_second
from benchmarks.measuring import Row, at_least, at_most
from torch.nn import functional as F

import polyad
from polyad.compress import equivalent_rescaling
from polyad.data import stdlib
from polyad.models.source import origin

KEPT = Path.home() / ".cache" / "polyad" / "benchmarks" / "exports"
POLYAD = str(Path(sys.executable).with_name("polyad"))
CONTAINERS = ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL", "Q4_K", "Q4_K,*down_proj=Q6_K,*attn*=Q5_1")
RECIPES = ("rtn:bits=4", "normal_float:bits=4", "vs_quant:bits=4", "least_distortion:bits=4")
TURNS, TOKENS = 5, 48


def twin() -> Path:
    """SmolLM2 in other numbers of the same function: its own lie on a grid of 4 bits, which costs nothing there."""
    place = KEPT / "twin"
    if not place.exists():
        model = polyad.load("smollm2", dtype=torch.float32)
        polyad.apply(model, polyad.plan(model, equivalent_rescaling, seed=0))
        polyad.save(model, place, dtype=torch.float32)
    return place


def file_of(source: Path, name: str, *options: str) -> tuple[Path, Mapping[str, Any]]:
    """A folder as a GGUF file by the command, with what the command says of it."""
    place, said = KEPT / f"{name}.gguf", KEPT / f"{name}.json"
    if not said.exists():
        place.unlink(missing_ok=True)
        call = [POLYAD, "export", str(source), str(place), "--format", "gguf", *options, "--json"]
        said.write_text(subprocess.run(call, check=True, capture_output=True, text=True).stdout)
    return place, json.loads(said.read_text())


@functools.cache
def base() -> Path:
    """The twin in float32, of which llama.cpp makes its own files."""
    return file_of(twin(), "twin-F32")[0]


def text_file() -> Path:
    place = KEPT / "stdlib.txt"
    place.write_text("\n\n".join(body for _, body in stdlib().documents), encoding="utf-8")
    return place


def our_perplexity(model: Any) -> float:
    """The perplexity of a model on the tokens that llama-perplexity scores: of each window the later half."""
    ids = origin(model).tokenizer(text_file().read_text(encoding="utf-8"), add_special_tokens=False).input_ids
    windows = torch.tensor(ids[: CHUNKS * CONTEXT]).reshape(CHUNKS, CONTEXT)
    total = 0.0
    with torch.no_grad():
        for window in windows:
            logits = model(window[None]).logits[0, CONTEXT // 2 : -1].float()
            total += float(F.cross_entropy(logits, window[CONTEXT // 2 + 1 :]))
    return math.exp(total / CHUNKS)


def kept(name: str, make: Callable[[], float]) -> float:
    """A figure that several rows share, measured once."""
    place = KEPT / f"{name}.figure"
    if not place.exists():
        place.write_text(repr(make()))
    return float(place.read_text())


def quality(model: Any, file: Path) -> dict[str, float]:
    """Perplexities over the original's: of the model, of the file read back, and of the file by its engine."""
    original = kept("twin-same-tokens", lambda: our_perplexity(polyad.load(twin())))
    engine = kept("twin-llama", lambda: perplexity(base(), text_file()))
    return {
        "model": our_perplexity(model) / original if model is not None else math.nan,
        "read back": our_perplexity(polyad.load(file)) / original,
        "llama-perplexity": perplexity(file, text_file()) / engine,
    }


def container(kind: str) -> Row:
    """Dense weights in a container, rounded by polyad and by llama.cpp."""
    name = kind.translate(str.maketrans({"*": "", ",": "-", "=": "-"}))
    ours, said = file_of(twin(), f"twin-{name}", "--container", kind)
    theirs = KEPT / f"llama-{name}.gguf"
    quantize_like(ours, base(), theirs)
    ratio = ours.stat().st_size / theirs.stat().st_size
    ratios = quality(None, ours)
    del ratios["model"]
    engine = kept("twin-llama", lambda: perplexity(base(), text_file()))
    ratios["llama.cpp's own file"] = perplexity(theirs, text_file()) / engine
    return {
        "bytes": {"ours": ours.stat().st_size, "llama.cpp": theirs.stat().st_size},
        "perplexity": ratios, "checked": said["checked"],
        "asked": [at_most("bytes apart", abs(ratio - 1), 0.01),
                  at_most("read back / engine", abs(ratios["read back"] / ratios["llama-perplexity"] - 1), 0.03),
                  at_most("ours / llama.cpp's", ratios["llama-perplexity"] / ratios["llama.cpp's own file"], 1.02)],
    }  # fmt: skip


def recipe(method: str) -> Row:
    """A model compressed within what GGUF holds: the file says what the model says."""
    place = KEPT / method.replace(":", "-").replace("=", "-")
    if not place.exists():
        quick = ("--windows", "1", "--alternations", "0", "--text", "stdlib", "--calibration-windows", "2")
        call = [POLYAD, "compress", str(twin()), "--method", method, "--for", "gguf", *quick, "--out", str(place)]
        subprocess.run(call, check=True, stdout=sys.stderr)
    file, said = file_of(place, place.name, "--container", "Q8_0")
    ratios = quality(polyad.load(place, kernels="plain", dtype=torch.float32), file)
    return {
        "bytes": {"file": file.stat().st_size}, "perplexity": ratios, "checked": said["checked"],
        "notes": said["notes"],
        "asked": [at_most("file / model", abs(ratios["read back"] / ratios["model"] - 1), 0.005),
                  at_most("engine / model", abs(ratios["llama-perplexity"] / ratios["model"] - 1), 0.03)],
    }  # fmt: skip


def speed(kind: str) -> Row:
    """Tokens a second of our file and of llama.cpp's with the same containers, in turns."""
    ours, _ = file_of(twin(), f"twin-{kind}", "--container", kind)
    theirs = KEPT / f"llama-{kind}.gguf"
    if not theirs.exists():
        quantize_like(ours, base(), theirs)
    samples: dict[str, list[float]] = {"ours": [], "llama.cpp": []}
    for _ in range(TURNS):
        for name, file in (("ours", ours), ("llama.cpp", theirs)):
            samples[name].append(tokens_a_second(file, TOKENS))
    ratio = statistics.median(samples["ours"]) / statistics.median(samples["llama.cpp"])
    return {"samples": samples, "asked": [at_least("ours / llama.cpp", ratio, 0.95)]}


ROWS: dict[str, Callable[[], Row]] = {
    **{f"gguf, {kind}": functools.partial(container, kind) for kind in CONTAINERS},
    **{f"gguf, {method}": functools.partial(recipe, method) for method in RECIPES},
    **{f"gguf, speed, {kind}": functools.partial(speed, kind) for kind in ("Q4_1", "Q8_0", "IQ4_NL")},
}
