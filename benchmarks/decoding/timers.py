"""Timers of decoding and prefill, and the rows that are made of their samples."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from benchmarks.measuring import Row, at_most, median

import polyad
from polyad.decode.clock import Clock

PROMPT = "The State of the Union is strong, and the standard library of Python has batteries included."
TOKENS, TURNS = 32, 7
Timers = Mapping[str, Callable[[], float]]


class Stepper:
    """Tokens and prompts by a model's own forward pass or by transformers' ``generate``, without gradients."""

    def __init__(self, model: Any, tokens: int = TOKENS) -> None:
        self.model, self.tokens = model, tokens
        self.ids = torch.tensor([polyad.models.encoder(model)(PROMPT)])

    @torch.no_grad()
    def seconds(self) -> float:
        """The median of a token's seconds, after the prompt, with transformers' own cache."""
        state = self.model(self.ids, use_cache=True)
        token, taken = state.logits[:, -1:].argmax(-1), []
        for _ in range(self.tokens):
            started = time.perf_counter()
            state = self.model(token, past_key_values=state.past_key_values, use_cache=True)
            taken.append(time.perf_counter() - started)
            token = state.logits[:, -1:].argmax(-1)
        return statistics.median(taken)

    @torch.no_grad()
    def prefill(self, length: int) -> float:
        """Seconds of a prompt of so many tokens, the logits of its last one alone."""
        started = time.perf_counter()
        self.model(self.prompt(length), use_cache=True, logits_to_keep=1)
        return time.perf_counter() - started

    def prompt(self, length: int) -> torch.Tensor:
        """The ids (1, length) of the prompt, again and again."""
        return self.ids.repeat(1, length // self.ids.shape[1] + 1)[:, :length]

    def transformers(self) -> float:
        """The median of a token's seconds by transformers' ``generate``."""
        clock, count = Clock(self.model.device), self.tokens + 1
        clock.start()
        self.model.generate(
            self.ids, attention_mask=torch.ones_like(self.ids), max_new_tokens=count, min_new_tokens=count,
            do_sample=False, stopping_criteria=[clock],
        )  # fmt: skip
        return (clock.milliseconds_per_token or 0.0) / 1000


def generation(model: Any, dtype: torch.dtype | None = None, prompt: Any = PROMPT, tokens: int = TOKENS) -> float:
    """Seconds a token of ``polyad.generate``, decoding alone."""
    done = polyad.generate(model, prompt, max_new_tokens=tokens, dtype=dtype)
    if done.loop != "polyad":
        raise ValueError(f"the loop was not used: {done.reason}")
    return (done.milliseconds_per_token or 0.0) / 1000


def generation_prefill(stepper: Stepper, length: int) -> float:
    """Seconds of a prompt in ``polyad.generate``, in bfloat16."""
    done = polyad.generate(stepper.model, stepper.prompt(length), max_new_tokens=1, dtype=torch.bfloat16)
    if done.loop != "polyad":
        raise ValueError(f"the loop was not used: {done.reason}")
    return length / done.prefill_tokens_per_second


def on_one_thread(timer: Callable[[], float]) -> float:
    """What a timer measures with one thread, whatever the row has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return timer()
    finally:
        torch.set_num_threads(threads)


def turns(timers: Timers, count: int = TURNS) -> dict[str, list[float]]:
    """Samples of all sides in turns, after one turn that does not count."""
    for timer in timers.values():
        timer()
    samples: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(count):
        for name, timer in timers.items():
            samples[name].append(timer())
    return samples


def judged(samples: dict[str, list[float]], asked: Sequence[tuple[str, str, float]], **facts: Any) -> Row:
    """A row of samples: for each (ours, other, bar) our median over the other's, and how much it may be."""
    rows = [at_most(f"{ours} / {other}", median(samples[ours]) / median(samples[other]), bar)
            for ours, other, bar in asked]  # fmt: skip
    milliseconds = {name: 1000 * median(values) for name, values in samples.items()}
    threads = torch.get_num_threads()
    return {"threads": threads, "milliseconds": milliseconds, "facts": facts, "samples": samples, "asked": rows}
