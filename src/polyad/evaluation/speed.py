"""Tokens a second, of several models in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyad._callback import Callback
from polyad.cache import cache_for
from polyad.data.calibration import window_length

ALTERNATIONS = 15
PREFILL = 1024
DECODED = 8  # tokens a sample


@dataclass(frozen=True)
class Rate:
    """Median tokens a second, with the first and third quartile and all samples' seconds."""

    median: float
    low: float
    high: float
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Speed:
    """Rates of reading a prompt and of decoding after it, with the threads, dtype and cache that they hold for."""

    prefill: Rate
    decode: Rate
    threads: int
    dtype: str
    cache: str


def speeds(
    models: Mapping[str, Any],
    *,
    tokens: int = PREFILL,
    alternations: int = ALTERNATIONS,
    seed: int = 0,
    callback: Callback | None = None,
) -> dict[str, Speed]:
    """Prefill of ``tokens`` random ids and decoding after them, batch 1, the models taking turns.

    One round of each goes uncounted. Decoding continues the prompt with exact keys and values, ``DECODED`` tokens a
    sample: in preallocated buffers if every model can be held so, else in transformers' own cache, which copies
    itself at every token. The result says which.
    """
    if alternations < 1:
        raise ValueError(f"alternations={alternations} measures nothing; ask for at least one turn")
    generator = torch.Generator().manual_seed(seed)
    first = next(iter(models.values()))
    decoded = DECODED * (alternations + 1)
    tokens = max(1, window_length(first, tokens + decoded) - decoded)
    prompt = torch.randint(0, first.config.vocab_size, (1, tokens), generator=generator)
    cache, fresh = _cache(models.values())
    prefill, decode = _seconds(models, prompt, fresh, alternations, callback)
    return {
        name: Speed(
            _rate(prefill[name], tokens),
            _rate(decode[name], DECODED),
            torch.get_num_threads(),
            str(model.dtype).removeprefix("torch."),
            cache,
        )
        for name, model in models.items()
    }


def _seconds(
    models: Mapping[str, Any],
    prompt: Tensor,
    fresh: Callable[[Any], Any],
    alternations: int,
    callback: Callback | None,
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """The seconds of reading a prompt and of decoding after it, by model, of every turn but the first."""
    prefill: dict[str, list[float]] = {name: [] for name in models}
    decode: dict[str, list[float]] = {name: [] for name in models}
    with torch.no_grad():
        caches = {name: fresh(model) for name, model in models.items()}
        for name, model in models.items():
            model(prompt, past_key_values=caches[name], use_cache=True, logits_to_keep=1)
        for turn in range(alternations + 1):
            for name, model in models.items():
                clock = time.perf_counter()
                model(prompt, past_key_values=fresh(model), use_cache=True)
                middle = time.perf_counter()
                for i in range(DECODED):
                    model(prompt[:, i : i + 1], past_key_values=caches[name], use_cache=True)
                end = time.perf_counter()
                if turn:
                    prefill[name].append(middle - clock)
                    decode[name].append(end - middle)
            if callback is not None:
                callback(turn + 1, alternations + 1, {"stage": "speed"})
    return prefill, decode


def _cache(models: Iterable[Any]) -> tuple[str, Callable[[Any], Any]]:
    """The cache that every model can have, and what makes one."""
    from transformers import DynamicCache

    try:
        for model in models:
            cache_for(model)
    except ValueError:
        return "transformers", lambda model: DynamicCache(config=model.config)
    return "preallocated", cache_for


def _rate(seconds: list[float], tokens: int) -> Rate:
    low, middle, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
    return Rate(tokens / middle, tokens / high, tokens / low, tuple(seconds))
