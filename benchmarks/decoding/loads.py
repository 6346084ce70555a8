"""What the kernels cost beside a token: the measurement at the first load, and memory."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from benchmarks.decoding.folders import folder
from benchmarks.decoding.timers import generation
from benchmarks.measuring import Row, at_most, median

import polyad
from polyad.formats import Quantized
from polyad.layers.kernels.models import linear_weights, quantised_parts
from polyad.layers.kernels.process_memory import return_memory
from polyad.models.source import origin

LOADS = 3
MOST_SECONDS, MOST_MEMORY = 3.0, 2.0
LOAD = """
import json, sys, time, transformers, polyad
polyad.load(sys.argv[2])
started = time.perf_counter()
polyad.load(sys.argv[1])
print(json.dumps(time.perf_counter() - started))
"""
"""A load in a process of its own; one of the original before it pays for what is imported on the way."""


def first_load(recipe: str) -> Row:
    """Seconds of the first load of a folder, which measures, and of one after it, in fresh processes."""
    original = str(origin(polyad.load("smollm2")).folder)
    samples: dict[str, list[float]] = {"first": [], "later": []}
    for _ in range(LOADS):
        with tempfile.TemporaryDirectory() as cache:
            environment = os.environ | {"POLYAD_CACHE": cache}
            for name in samples:
                call = [sys.executable, "-c", LOAD, str(folder(recipe)), original]
                said = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
                samples[name].append(json.loads(said.splitlines()[-1]))
    apart = median(samples["first"]) - median(samples["later"])
    asked = [at_most("first - later, seconds", apart, MOST_SECONDS)]
    return {"threads": torch.get_num_threads(), "samples": samples, "asked": asked}


def memory(recipe: str) -> Row:
    """Resident memory of a compressed model once it has generated, over the bytes of its codes and scales."""
    generation(polyad.load("smollm2"), torch.bfloat16)  # what is imported and allocated once
    gc.collect()
    return_memory()  # or the next model would lie in what this one left
    nothing = _resident()
    model = polyad.load(folder(recipe))
    stored = _stored(model)
    loaded = _resident()
    generation(model)
    gc.collect()
    generated = _resident()
    facts = {"stored bytes": stored, "loaded": loaded - nothing, "after generating": generated - nothing}
    asked = [at_most("memory after generating / stored bytes", (generated - nothing) / stored, MOST_MEMORY)]
    return {"threads": torch.get_num_threads(), "facts": facts, "samples": {}, "asked": asked}


def _stored(model: Any) -> int:
    parts: list[Quantized] = [part for w in linear_weights(model).values() for part in quantised_parts(w())]
    return sum(part.nbytes for part in parts)


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
