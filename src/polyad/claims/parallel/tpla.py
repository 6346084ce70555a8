"""TPLA on SmolLM2 as latent attention: perplexity with the cache cut in two, before and after mixing. Three minutes.

Both ranks run in one process here, one after the other;
tests/attention/test_sharded_attention.py holds two processes to that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from polyad._callback import Callback
from polyad.attention import LatentAttention, ShardedLatentAttention, convert_attention, mix_latent
from polyad.claims.record import Result
from polyad.data import calibration, digest, evaluation
from polyad.evaluation.quality import losses
from polyad.models import collect, load, replace

MINUTES = 3
RANK, ROPE, WORLD = 256, 64, 2


class Summed(nn.Module):
    """All ranks of one layer, one after the other, and their sum."""

    def __init__(self, whole: LatentAttention, scale: float) -> None:
        super().__init__()
        self.parts = nn.ModuleList(ShardedLatentAttention(whole, i, WORLD, scale=scale) for i in range(WORLD))

    def forward(self, hidden_states: Tensor, position_embeddings: Any, attention_mask: Any = None, **_: Any) -> Any:
        """Without a cache."""
        return sum(part(hidden_states, position_embeddings, attention_mask)[0] for part in self.parts), None


def claim(callback: Callback | None = None) -> Result:
    """Mixing the latent before the cut leaves a perplexity nearer to the whole's than cutting it as it is."""
    model: Any = load("smollm2", dtype=torch.float32)
    sample = calibration(model, "stdlib", count=2, length=512)
    windows = evaluation(model, "stdlib", count=1, length=512)["stdlib"]
    convert_attention(model, rank=RANK, rope=ROPE, windows=sample.windows, callback=callback)
    latent = {p: m for p, m in model.named_modules() if isinstance(m, LatentAttention)}
    turn_at_random(latent)
    whole = _perplexity(model, windows)
    perplexities = {"as it is": _cut(model, latent, windows, WORLD)}
    needs = {f"{p}.kv_down": ("second",) for p in latent}
    moments = {p: m.second for p, m in collect(model, needs, sample.windows, callback=callback).items()}
    _turn(latent, lambda _path, m: mix_latent(m, "hadamard"))
    perplexities["hadamard"] = _cut(model, latent, windows, WORLD)
    _turn(latent, lambda path, m: mix_latent(m, "pca", _of_latent(m, moments[f"{path}.kv_down"])))
    perplexities["pca"] = _cut(model, latent, windows, 1.0)
    ratios = {name: value / whole for name, value in perplexities.items()}
    return Result(
        "with the latent cut in two and a softmax for each half, an orthogonal mixing (the better of Hadamard and "
        "PCA) leaves less of the rise in perplexity than the cut alone (ratio of the rises of its logarithm)",
        math.log(min(ratios["hadamard"], ratios["pca"])) / math.log(ratios["as it is"]), "<=", 0.5,
        {"calibration": digest(sample.windows), "evaluation": digest(windows)}, 0,
        {"perplexity of the whole": whole, "ratio after the cut": ratios,
         "numbers a token and layer in the cache": {"one rank": RANK + ROPE, "each of two": RANK // WORLD + ROPE}},
    )  # fmt: skip


def turn_at_random(latent: dict[str, LatentAttention]) -> None:
    """A random orthogonal basis of each latent: conversion leaves principal components, which training does not."""
    g = torch.Generator().manual_seed(0)
    for module in latent.values():
        turn = torch.linalg.qr(torch.randn(RANK, RANK, generator=g, dtype=torch.float64))[0]
        mix_latent(module, "pca", turn @ torch.diag(torch.arange(1.0, RANK + 1).double()) @ turn.mT)


def _turn(latent: dict[str, LatentAttention], how: Callable[[str, LatentAttention], Any]) -> None:
    for path, module in latent.items():
        how(path, module)


def _of_latent(module: LatentAttention, moment: Tensor | None) -> Tensor:
    assert moment is not None
    rows = module.kv_down.weight[: module.rank].detach()
    return rows @ moment @ rows.mT


def _cut(model: Any, latent: dict[str, LatentAttention], windows: Tensor, scale: float) -> float:
    undo = replace(model, {path: Summed(module, scale) for path, module in latent.items()})
    perplexity = _perplexity(model, windows)
    undo()
    return perplexity


def _perplexity(model: Any, windows: Tensor) -> float:
    return math.exp(float(losses(model, windows).mean()))
