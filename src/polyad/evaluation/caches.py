"""The cost of a compressed cache: the loss of the tokens after a prefix that was compressed once, and its bytes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad import _check
from polyad._callback import Callback
from polyad.cache import HeldCache, recording_cache

SCORED = 127


@dataclass(frozen=True)
class CacheQuality:
    """The perplexity of the tokens after the prefix, as a ratio to the exact cache's on the same tokens.

    ``error`` is the ratio's paired standard error over windows. ``nbytes`` is what all layers hold of one sequence
    after the prefix and ``shared_nbytes`` what the model holds once; ``ratio_of_bytes`` compares ``nbytes`` with an
    exact cache of the same layers in bfloat16.
    """

    ratio: float
    error: float | None
    nbytes: int
    shared_nbytes: int
    ratio_of_bytes: float


def cache_quality(
    model: Any,
    makes: Mapping[str, Callable[[], HeldCache]],
    windows: Tensor,
    *,
    scored: int = SCORED,
    at_once: int = 1,
    callback: Callback | None = None,
) -> dict[str, CacheQuality]:
    """Every cache on the same windows of token ids (count, prefix + scored), the exact cache being the measure.

    The prefix is run once a window, and each cache compresses its exact keys and values; then each reads the
    ``scored`` tokens that follow, one after another, as in decoding; or ``at_once`` of them in a call, which is
    faster and leaves those of a call exact for each other, as in a longer window.
    """
    _check.at_least("at_once", at_once, 1)
    prefix = windows.shape[1] - scored
    if prefix < 1:
        raise ValueError(f"windows of {windows.shape[1]} tokens leave no prefix before scored={scored} tokens")
    losses: dict[str, list[float]] = {name: [] for name in ("", *makes)}
    sizes: dict[str, tuple[int, int]] = {}
    plain = 0.0
    with torch.no_grad():
        for number, window in enumerate(windows, 1):
            ids = window[None].to(model.device)
            exact = recording_cache(model)
            model.base_model(ids[:, :prefix], past_key_values=exact, use_cache=True)
            plain = 2.0 * exact.numbers
            for name, make in makes.items():
                cache = make().adopt(exact)
                sizes[name] = cache.nbytes, cache.shared_nbytes
                losses[name].append(_loss(model, ids, prefix, cache, at_once))
            losses[""].append(_loss(model, ids, prefix, exact, at_once))
            if callback is not None:
                callback(number, len(windows), {"stage": "caches"})
    return {name: _quality(losses[name], losses[""], size, plain) for name, size in sizes.items()}


def cache_speed(
    model: Any,
    makes: Mapping[str, Callable[[], HeldCache]],
    *,
    context: int,
    alternations: int = 15,
    decoded: int = 4,
    clock: Callable[[], float] = time.perf_counter,
    callback: Callback | None = None,
) -> dict[str, float]:
    """Seconds a token of decoding after ``context`` random tokens, the caches taking turns; medians.

    ``transformers`` is its own plain cache. One round of each goes uncounted. ``clock`` gives seconds, by default
    those on the wall; ``time.process_time`` of one thread is for machines that others use too.
    """

    ids = torch.randint(0, model.config.vocab_size, (1, context), generator=torch.Generator().manual_seed(0))
    seconds: dict[str, list[float]] = {name: [] for name in ("transformers", *makes)}
    with torch.no_grad():
        exact = recording_cache(model)
        model.base_model(ids, past_key_values=exact, use_cache=True)
        caches: dict[str, Any] = {name: make().adopt(exact) for name, make in makes.items()}
        caches["transformers"] = _transformers_cache(model, exact, ids)
        for turn in range(alternations + 1):
            for name in seconds:
                started = clock()
                for i in range(decoded):
                    model(ids[:, i : i + 1], past_key_values=caches[name], use_cache=True)
                if turn:
                    seconds[name].append((clock() - started) / decoded)
            if callback is not None:
                callback(turn + 1, alternations + 1, {"stage": "speed"})
    return {name: statistics.median(times) for name, times in seconds.items()}


def _transformers_cache(model: Any, exact: HeldCache, ids: Tensor) -> Any:
    """transformers' own cache of the same tokens."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    if len(exact.held) == len(exact.layers):
        for number, layer in enumerate(exact.held):
            keys, values = layer.recent.read()
            cache.update(keys.clone(), values.clone(), number)
    else:  # some layers are held as transformers holds them
        model.base_model(ids, past_key_values=cache, use_cache=True)
    return cache


def _loss(model: Any, ids: Tensor, prefix: int, cache: HeldCache, at_once: int) -> float:
    """Mean negative log-likelihood of the tokens after the prefix but the first, which nothing predicts here."""
    total = 0.0
    for i in range(prefix, ids.shape[1] - 1, at_once):
        stop = min(i + at_once, ids.shape[1] - 1)
        logits = model(ids[:, i:stop], past_key_values=cache, use_cache=True).logits[0].float()
        total += float(F.cross_entropy(logits, ids[0, i + 1 : stop + 1], reduction="sum"))
    return total / (ids.shape[1] - 1 - prefix)


def _quality(mine: list[float], exact: list[float], size: tuple[int, int], plain: float) -> CacheQuality:
    gaps = torch.tensor(mine, dtype=torch.float64) - torch.tensor(exact, dtype=torch.float64)
    ratio = math.exp(float(gaps.mean()))
    error = ratio * float(gaps.std()) / math.sqrt(len(gaps)) if len(gaps) > 1 else None
    return CacheQuality(ratio, error, *size, plain / size[0])
