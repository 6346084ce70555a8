"""What a compressed cache costs: the loss of the tokens after a prefix that was compressed once, and its bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad.cache import HeldCache, cache_for, remembering

SCORED = 127


@dataclass(frozen=True)
class CacheQuality:
    """The perplexity of the tokens after the prefix, as a ratio to the exact cache's on the same tokens.

    ``error`` is the ratio's paired standard error over windows. ``nbytes`` is what one sequence holds after the
    prefix and ``shared_nbytes`` what the model holds once; ``ratio_of_bytes`` compares ``nbytes`` with an exact cache
    in bfloat16.
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
    step: int = 1,
    callback: Callable[..., Any] | None = None,
) -> dict[str, CacheQuality]:
    """Every cache on the same windows of token ids (count, prefix + scored), the exact cache being the measure.

    The prefix is run once a window, and each cache compresses its exact keys and values; then each reads the
    ``scored`` tokens that follow, one after another, as in decoding, or ``step`` at a time: faster by that factor,
    and the same but for tokens that leave the window later.
    """
    if step < 1:
        raise ValueError(f"step={step} must be at least 1")
    prefix = windows.shape[1] - scored
    if prefix < 1:
        raise ValueError(f"windows of {windows.shape[1]} tokens leave no prefix before scored={scored} tokens")
    losses: dict[str, list[float]] = {name: [] for name in ("", *makes)}
    sizes: dict[str, tuple[int, int]] = {}
    with torch.no_grad():
        for number, window in enumerate(windows, 1):
            ids = window[None].to(model.device)
            exact = remembering(model)
            model.base_model(ids[:, :prefix], past_key_values=exact, use_cache=True)
            for name, make in makes.items():
                cache = make().adopt(exact)
                sizes[name] = cache.nbytes, cache.shared_nbytes
                losses[name].append(_loss(model, ids, prefix, cache, step))
            losses[""].append(_loss(model, ids, prefix, exact, step))
            if callback is not None:
                callback(number, len(windows), {"stage": "caches"})
    plain = _plain(model) * prefix
    return {name: _quality(losses[name], losses[""], size, plain) for name, size in sizes.items()}


def _loss(model: Any, ids: Tensor, prefix: int, cache: HeldCache, step: int) -> float:
    """Mean negative log-likelihood of the tokens after the prefix but the first, which nothing predicts here."""
    total = 0.0
    for start in range(prefix, ids.shape[1] - 1, step):
        stop = min(start + step, ids.shape[1] - 1)
        logits = model(ids[:, start:stop], past_key_values=cache, use_cache=True).logits[0].float()
        total += float(F.cross_entropy(logits, ids[0, start + 1 : stop + 1], reduction="sum"))
    return total / (ids.shape[1] - 1 - prefix)


def _quality(mine: list[float], exact: list[float], size: tuple[int, int], plain: float) -> CacheQuality:
    gaps = torch.tensor(mine, dtype=torch.float64) - torch.tensor(exact, dtype=torch.float64)
    ratio = math.exp(float(gaps.mean()))
    error = ratio * float(gaps.std()) / math.sqrt(len(gaps)) if len(gaps) > 1 else None
    return CacheQuality(ratio, error, *size, plain / size[0])


def _plain(model: Any) -> float:
    """Bytes a token of an exact cache in bfloat16."""
    probe = cache_for(model)
    model.base_model(torch.ones(1, 1, dtype=torch.int64, device=model.device), past_key_values=probe, use_cache=True)
    return sum(2.0 * t.numel() for layer in probe.held for t in layer.recent.read())
