"""TransMLA on SmolLM2: the exact conversion, the curve of shrinking, and healing. Ten minutes on two cores."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache

from polyad._callback import Callback
from polyad.attention import convert_attention, transmla
from polyad.claims._smollm2_perplexity import Bench, mean
from polyad.claims.record import Result
from polyad.data import calibration
from polyad.models import blocks, collect, replace

MINUTES = 10
SIZES = ((320, 64), (192, 64), (192, 128), (128, 64))
"""(rank, rope), of 384 numbers a token in the cache."""
HEALED = 100
"""Steps of training the second of these, two rows of 256 tokens each."""


def claim(callback: Callback | None = None) -> Result:
    """Grouped-query attention is latent attention of an equal cache: no logit changes beyond rounding."""
    bench = Bench(calibrate=4, windows=1)
    model, ids = bench.model, bench.texts["stdlib"][:1, :256]
    before, cache_bytes = _decode(model, ids)
    undo = convert_attention(model)
    after, bytes_after = _decode(model, ids)
    undo()
    needs = {b.roles["k"]: ("second", "mean") for b in blocks(model, ("qk",))}
    moments = collect(model, needs, bench.calibration.windows, callback=callback)
    curve = {}
    for rank, rope in SIZES:
        undo = replace(model, transmla(model, rank=rank, rope=rope, moments=moments))
        ratios = {name: bench._ratio(name, w, callback) for name, w in bench.texts.items()}
        curve[f"rank {rank}, rope {rope}"] = {"cache": (rank + rope) / 384, "perplexity": mean(ratios), **ratios}
        undo()
    rank, rope = SIZES[1]
    windows = calibration(model, tuple(bench.texts), count=HEALED // 2).windows
    undo = convert_attention(model, rank=rank, rope=rope, windows=windows, heal=HEALED, callback=callback)
    healed = {name: bench._ratio(name, w, callback) for name, w in bench.texts.items()}
    undo()
    curve[f"rank {rank}, rope {rope}, healed"] = {"cache": (rank + rope) / 384, "perplexity": mean(healed), **healed}
    return Result(
        "a model with grouped-query attention converted to latent attention of the same cache keeps its logits, at "
        "once and step by step",
        float((after - before).abs().max()), "<=", 1e-4, bench.data, 0,
        {"largest logit": float(before.abs().max()), "cache bytes": cache_bytes, "cache bytes after": bytes_after,
         "after shrinking, and after 100 steps of healing": curve},
    )  # fmt: skip


def _decode(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Logits of a prompt and of its last sixteen tokens one by one, and the bytes of the cache."""
    cache: Any = DynamicCache(config=model.config)
    with torch.no_grad():
        parts = [model(piece, past_key_values=cache).logits for piece in ids.split([ids.shape[1] - 16, *[1] * 16], 1)]
    cache_bytes = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    return torch.cat(parts, 1), cache_bytes
