"""A sentence encoder and a classifier of pictures, compressed and exported by the command, timed in onnxruntime."""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from benchmarks.exports import networks
from benchmarks.exports.gguf_rows import KEPT, POLYAD
from benchmarks.measuring import Row, at_most
from torch import Tensor

import polyad
from polyad.data import stdlib
from polyad.interop.onnx import Session

RECIPES = {
    "8 bits": ("rtn:bits=8,group=32", None), "4 bits": ("rtn:bits=4,group=32", None), "low rank": ("svd", 0.7),
    "low rank, 4 bits": ("svd+rtn:bits=4,group=32", 0.7),
}  # fmt: skip
TURNS = 15
Feeds = dict[str, Tensor]


def run(*words: Any) -> str:
    """What the command prints."""
    return subprocess.run([POLYAD, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True).stdout


def graph(name: str, source: Path, *options: Any) -> tuple[Path, Mapping[str, Any]]:
    """A folder exported by the command once, and what the command said."""
    place, said = KEPT / f"{name}-onnx", KEPT / f"{name}-onnx.json"
    if not said.exists():
        said.write_text(run("export", source, place, "--format", "onnx", *options, "--json"))
    return place, json.loads(said.read_text())


def compressed(network: str, recipe: str, make: Callable[[], Any]) -> Path:
    """The folder of a network compressed by a recipe, or as it is."""
    place = KEPT / f"{network}-{recipe.replace(', ', '-').replace(' ', '-')}"
    if not place.exists():
        model = make()
        if recipe != "original":
            method, keep = RECIPES[recipe]
            polyad.apply(model, polyad.plan(model, method, keep=keep))
        polyad.save(model, place, dtype=torch.float32)
    return place


def encoder(recipe: str) -> tuple[Path, Mapping[str, Any]]:
    """MiniLM compressed, and its graph by the command."""
    place = compressed("minilm", recipe, lambda: polyad.load(networks.minilm()))
    return graph(place.name, place)


def classifier(recipe: str) -> tuple[Path, Mapping[str, Any]]:
    """EfficientNet compressed, and its graph by the command."""
    place = compressed("efficientnet", recipe, networks.efficientnet)
    like = f"{Path(networks.__file__)}:efficientnet"
    return graph(place.name, place, "--like", like, "--inputs", "2x3x224x224")


def sentence() -> Feeds:
    """A text of 128 tokens."""
    tokenizer = polyad.models.origin(polyad.load(networks.minilm())).tokenizer
    text = stdlib().documents[3][1]
    ids = torch.tensor([tokenizer(text, truncation=True, max_length=128).input_ids])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def picture() -> Feeds:
    """Smoothed noise of the size of a picture."""
    noise = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    return {"input": torch.nn.functional.interpolate(noise, (224, 224), mode="bilinear")}


def timed(make: Callable[[str], tuple[Path, Mapping[str, Any]]], inputs: Callable[[], Feeds], recipe: str) -> Row:
    """Processor time of one input in turns with the original's graph, and how far the outputs are apart."""
    (place, said), (before, whole) = make(recipe), make("original")
    feeds = inputs()
    sessions = {
        "ours": Session(place / "model.onnx", threads=1),
        "original": Session(before / "model.onnx", threads=1),
    }
    outputs = {name: next(iter(session.run(feeds).values())).double() for name, session in sessions.items()}
    samples: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(TURNS):
        for name, session in sessions.items():
            started = time.process_time()
            session.run(feeds)
            samples[name].append(time.process_time() - started)
    apart = float((outputs["ours"] - outputs["original"]).norm() / outputs["original"].norm())
    ratio = statistics.median(samples["ours"]) / statistics.median(samples["original"])
    size = said["bytes"] / whole["bytes"]
    return {
        "bytes": {"ours": said["bytes"], "original": whole["bytes"]}, "apart": apart, "checked": said["checked"],
        "notes": said["notes"], "samples": samples,
        "asked": [at_most("bytes / original", size, 1.0), at_most("time / original", ratio, 1.0)],
    }  # fmt: skip


ROWS: dict[str, Callable[[], Row]] = {
    **{f"onnx, MiniLM, {recipe}": functools.partial(timed, encoder, sentence, recipe) for recipe in RECIPES},
    **{f"onnx, EfficientNet, {recipe}": functools.partial(timed, classifier, picture, recipe) for recipe in RECIPES},
}
