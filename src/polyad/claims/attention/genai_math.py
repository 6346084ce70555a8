"""Bits that fall with age against uniform ones at equal bytes, on SmolLM2's cache. Two minutes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from polyad._callback import Callback
from polyad.cache import staircase
from polyad.claims.record import Result
from polyad.data import digest, evaluation
from polyad.formats import Quantized
from polyad.models import load

MINUTES = 2
LENGTH, SCORED, GROUP = 768, 128, 32
EVEN: dict[str, Any] = {"share": (1.0,)}


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """Of four bits a number on average, more for young tokens and fewer for old ones lose less than equal bits."""
    model: Any = load("smollm2", dtype=torch.float32)
    window = evaluation(model, "stdlib", count=1, length=LENGTH)["stdlib"]
    figures: dict[str, Any] = {}
    ways: dict[str, tuple[Sequence[int], dict[str, Any]]] = {
        "8, 4, 2 by age": ((2, 4, 8), {}), "4 everywhere": ((4,), EVEN), "3 everywhere": ((3,), EVEN),
        "2, 4, 8 by age, the wrong way": ((8, 4, 2), {"share": (0.2, 0.4, 0.4)}),
    }  # fmt: skip
    with torch.no_grad():
        cache: Any = DynamicCache(config=model.config)
        model(window[:, :-SCORED], past_key_values=cache)
        exact = _loss(model, window, cache, lambda x, _: (x, 0))
        for name, (bits, options) in ways.items():
            byte_count = [0]

            def store(
                x: Tensor, key: bool, bits: Any = bits, options: Any = options, byte_count: Any = byte_count
            ) -> Any:
                group: Any = (GROUP, 1) if key else GROUP
                parts: list[Quantized] = staircase(x, bits, group=group, zero_dtype=torch.float16, **options)
                byte_count[0] += sum(p.nbytes for p in parts)
                return torch.cat([p.to_dense() for p in parts], -2), byte_count

            figures[name] = {"ratio": math.exp(_loss(model, window, cache, store) - exact), "bytes": byte_count[0]}
    return Result(
        "with four bits a number on average, bits that fall with age leave a lower perplexity than equal bits (ratio "
        "of perplexities)",
        figures["8, 4, 2 by age"]["ratio"] / figures["4 everywhere"]["ratio"], "<=", 1.0,
        {"evaluation": digest(window)}, 0,
        {"perplexity to the exact cache's, and bytes": figures, "scored tokens": SCORED},
    )  # fmt: skip


def _loss(model: Any, window: Tensor, exact: Any, stored: Callable[..., Any]) -> float:
    """Mean loss of the last tokens, which read a prefix stored so and themselves as they are."""
    cache: Any = DynamicCache(config=model.config)
    for i, layer in enumerate(exact.layers):
        cache.update(stored(layer.keys, True)[0], stored(layer.values, False)[0], i)
    logits = model(window[:, -SCORED:-1], past_key_values=cache).logits[0]
    return float(F.cross_entropy(logits, window[0, 1 - SCORED :]))
