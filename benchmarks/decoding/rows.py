"""The rows: each times its sides in turns and says what is asked of their ratios."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from benchmarks.decoding.engine import engine_seconds
from benchmarks.decoding.folders import folder
from benchmarks.decoding.loads import first_load, memory
from benchmarks.decoding.peers import PEERS, beside_peer
from benchmarks.decoding.random_layers import random_ranks
from benchmarks.decoding.timers import (
    PROMPT,
    TOKENS,
    Stepper,
    generation,
    generation_prefill,
    judged,
    on_one_thread,
    turns,
)  # fmt: skip
from benchmarks.measuring import Row

import polyad

OPERATIONS = 1 / 1.2
"""The time of a prompt at a quarter fewer operations, over transformers' in bfloat16."""


def plain_forward(recipe: str, bar: float) -> Row:
    """One token of the plain forward, beside transformers in both dtypes."""
    sides = {
        "ours": Stepper(polyad.load(folder(recipe))).seconds,
        "float32": Stepper(polyad.load("smollm2", dtype=torch.float32)).seconds,
        "bfloat16": Stepper(polyad.load("smollm2", dtype=torch.bfloat16)).seconds,
    }
    return judged(turns(sides), [("ours", "float32", bar), ("ours", "bfloat16", 1.0)])


def loop(recipe: str, bar: float) -> Row:
    """One token of ``polyad.generate``, beside transformers and the original in the same loop."""
    sides = {
        "ours": partial(generation, polyad.load(folder(recipe))),
        "float32": partial(on_one_thread, Stepper(polyad.load("smollm2", dtype=torch.float32)).seconds),
        "bfloat16": Stepper(polyad.load("smollm2", dtype=torch.bfloat16)).seconds,
        "original in the loop": partial(generation, polyad.load("smollm2"), torch.bfloat16),
    }
    return judged(turns(sides), [("ours", "float32", bar), ("ours", "original in the loop", 1.0)])


def beside_engine(recipe: str, bar: float) -> Row:
    """One token of ``polyad.generate``, beside llama.cpp on the exported file."""
    model = polyad.load(folder(recipe))
    sides = {"ours": partial(generation, model), "llama.cpp": partial(engine_seconds, recipe, PROMPT, TOKENS)}
    return judged(turns(sides), [("ours", "llama.cpp", bar)])


def ranks() -> Row:
    """Two factors of 4 bits beside full rank in 4 bits, both in the loop."""
    sides = {
        "low rank": partial(generation, polyad.load(folder("low rank, 4 bits"))),
        "full rank": partial(generation, polyad.load(folder("4 bits"))),
    }
    return judged(turns(sides), [("low rank", "full rank", 1.1)])


def prefill(recipe: str, length: int, bar: float = 1.1) -> Row:
    """A prompt by the plain forward and by ``polyad.generate``, beside transformers in bfloat16."""
    ours = Stepper(polyad.load(folder(recipe), dtype=torch.bfloat16))
    sides = {
        "ours": partial(ours.prefill, length),
        "ours, generate": partial(generation_prefill, ours, length),
        "bfloat16": partial(Stepper(polyad.load("smollm2", dtype=torch.bfloat16)).prefill, length),
    }
    return judged(turns(sides), [(name, "bfloat16", bar) for name in ("ours", "ours, generate")])


ROWS: dict[str, Callable[[], Row]] = {
    "forward 4 bits": partial(plain_forward, "4 bits", 0.4),
    "forward 8 bits": partial(plain_forward, "8 bits", 0.6),
    "generate 4 bits 1 thread": partial(loop, "4 bits", 0.22),
    "generate 4 bits 2 threads": partial(loop, "4 bits", 0.17),
    "generate 8 bits 1 thread": partial(loop, "8 bits", 0.3),
    "generate low rank": ranks,
    "generate low rank width 2048": partial(random_ranks, 2048, 4),
    "generate low rank width 3072": partial(random_ranks, 3072, 2),
    "engine 4 bits 1 thread": partial(beside_engine, "4 bits", 1.25),
    "engine 4 bits 2 threads": partial(beside_engine, "4 bits", 1.0),
    **{f"peer {name}": partial(beside_peer, name) for name in PEERS},
    "prefill 512 4 bits": partial(prefill, "4 bits", 512),
    "prefill 1024 4 bits": partial(prefill, "4 bits", 1024),
    "prefill 512 8 bits": partial(prefill, "8 bits", 512),
    "prefill 512 low rank": partial(prefill, "low rank, 4 bits", 512, OPERATIONS),
    "prefill 1024 low rank": partial(prefill, "low rank, 4 bits", 1024, OPERATIONS),
    "first load": partial(first_load, "4 bits"),
    "memory 4 bits": partial(memory, "4 bits"),
    "memory 8 bits": partial(memory, "8 bits"),
}
THREADS = {name: 2 for name in ROWS if "2 threads" in name}
