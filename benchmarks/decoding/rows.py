"""The rows: each times two sides in turns and says what is asked of their ratio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from benchmarks.decoding.engine import engine_seconds
from benchmarks.decoding.folders import folder
from benchmarks.measuring import Row, at_most, median

import polyad

PROMPT = "The State of the Union is strong, and the standard library of Python has batteries included."
TOKENS, TURNS = 48, 9


class Stepper:
    """One token after another by the plain forward pass of a model, with transformers' own cache."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.ids = torch.tensor([polyad.models.encoder(model)(PROMPT)])

    @torch.inference_mode()
    def seconds(self) -> float:
        """The median of a token's seconds, after the prompt."""
        state = self.model(self.ids, use_cache=True)
        token, taken = state.logits[:, -1:].argmax(-1), []
        for _ in range(TOKENS):
            started = time.perf_counter()
            state = self.model(token, past_key_values=state.past_key_values, use_cache=True)
            taken.append(time.perf_counter() - started)
            token = state.logits[:, -1:].argmax(-1)
        return statistics.median(taken)

    @torch.inference_mode()
    def prefill(self, length: int) -> float:
        """Seconds of a prompt of so many tokens, the logits of its last one alone."""
        ids = self.ids.repeat(1, length // self.ids.shape[1] + 1)[:, :length]
        started = time.perf_counter()
        self.model(ids, use_cache=True, logits_to_keep=1)
        return time.perf_counter() - started


def generation(model: Any, dtype: torch.dtype | None = None) -> float:
    """Seconds a token of ``polyad.generate``, decoding alone."""
    done = polyad.generate(model, PROMPT, max_new_tokens=TOKENS, dtype=dtype)
    if done.loop != "polyad":
        raise ValueError(f"the loop was not used: {done.reason}")
    return done.milliseconds_per_token / 1000


def on_one_thread(timer: Callable[[], float]) -> float:
    """What a timer measures with one thread, whatever the row has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return timer()
    finally:
        torch.set_num_threads(threads)


def turns(timers: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Samples of all sides in turns, after one turn that does not count."""
    for timer in timers.values():
        timer()
    samples: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(TURNS):
        for name, timer in timers.items():
            samples[name].append(timer())
    return samples


def judged(samples: dict[str, list[float]], ours: str, asked: Mapping[str, float]) -> Row:
    """A row with our median over each other side's, and how much it may be."""
    rows = [at_most(f"{ours} / {name}", median(samples[ours]) / median(samples[name]), bar)
            for name, bar in asked.items()]  # fmt: skip
    milliseconds = {name: 1000 * median(values) for name, values in samples.items()}
    return {"threads": torch.get_num_threads(), "milliseconds": milliseconds, "samples": samples, "asked": rows}


def plain_forward(recipe: str, bar: float) -> Row:
    """One token of the plain forward, beside transformers in both dtypes."""
    sides = {
        "ours": Stepper(polyad.load(folder(recipe))).seconds,
        "float32": Stepper(polyad.load("smollm2", dtype=torch.float32)).seconds,
        "bfloat16": Stepper(polyad.load("smollm2", dtype=torch.bfloat16)).seconds,
    }
    return judged(turns(sides), "ours", {"float32": bar, "bfloat16": 1.0})


def loop(recipe: str, bar: float) -> Row:
    """One token of ``polyad.generate``, beside transformers and the original in the same loop."""
    sides = {
        "ours": partial(generation, polyad.load(folder(recipe))),
        "float32": partial(on_one_thread, Stepper(polyad.load("smollm2", dtype=torch.float32)).seconds),
        "bfloat16": Stepper(polyad.load("smollm2", dtype=torch.bfloat16)).seconds,
        "original in the loop": partial(generation, polyad.load("smollm2"), torch.bfloat16),
    }
    return judged(turns(sides), "ours", {"float32": bar, "original in the loop": 1.0})


def beside_engine(recipe: str, bar: float) -> Row:
    """One token of ``polyad.generate``, beside llama.cpp on the exported file."""
    model = polyad.load(folder(recipe))
    sides = {"ours": partial(generation, model), "llama.cpp": partial(engine_seconds, recipe, PROMPT, TOKENS)}
    return judged(turns(sides), "ours", {"llama.cpp": bar})


def ranks() -> Row:
    """Two factors of 4 bits beside full rank in 4 bits, both in the loop."""
    sides = {
        "low rank": partial(generation, polyad.load(folder("low rank, 4 bits"))),
        "full rank": partial(generation, polyad.load(folder("4 bits"))),
    }
    return judged(turns(sides), "low rank", {"full rank": 1.1})


def prefill(recipe: str, length: int) -> Row:
    """A prompt, beside transformers in bfloat16."""
    sides = {
        "ours": partial(Stepper(polyad.load(folder(recipe), dtype=torch.bfloat16)).prefill, length),
        "bfloat16": partial(Stepper(polyad.load("smollm2", dtype=torch.bfloat16)).prefill, length),
    }
    return judged(turns(sides), "ours", {"bfloat16": 1.1})


ROWS: dict[str, Callable[[], Row]] = {
    "plain forward, 4 bits": partial(plain_forward, "4 bits", 0.4),
    "plain forward, 8 bits": partial(plain_forward, "8 bits", 0.6),
    "generate, 4 bits, 1 thread": partial(loop, "4 bits", 0.22),
    "generate, 4 bits, 2 threads": partial(loop, "4 bits", 0.17),
    "generate, 8 bits, 1 thread": partial(loop, "8 bits", 0.3),
    "generate, low rank": ranks,
    "llama.cpp, 4 bits, 1 thread": partial(beside_engine, "4 bits", 1.25),
    "llama.cpp, 4 bits, 2 threads": partial(beside_engine, "4 bits", 1.0),
    "prefill of 512, 4 bits": partial(prefill, "4 bits", 512),
    "prefill of 1024, 4 bits": partial(prefill, "4 bits", 1024),
    "prefill of 512, low rank": partial(prefill, "low rank, 4 bits", 512),
}
THREADS = {name: 2 for name in ROWS if "2 threads" in name}
