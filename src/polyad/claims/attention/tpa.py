"""Tensor product attention against its rivals at equal parameters, trained on bytes. Twenty minutes on two cores.

The paper trains from 124 M parameters on billions of tokens; here 2.2 M on some hundred thousand, which says little
about large models: the claim is the paper's order at the budget that a processor has.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from polyad._callback import Callback
from polyad.attention import Decoder, decoder
from polyad.attention.decoder import ATTENTIONS
from polyad.claims.record import Result
from polyad.data import digest, split, stdlib, windows

MINUTES = 20
SIZES = {"width": 192, "layers": 5, "heads": 6, "hidden": 512}
STEPS, BATCH, LENGTH, SEEDS = 180, 8, 128, (0, 1, 2)


def claim(callback: Callback | None = None, *, steps: int = STEPS, seeds: tuple[int, ...] = SEEDS) -> Result:
    """The held-out loss with tensor products is not above the best of multi-head, grouped, multi-query and latent."""
    parts = split(stdlib(), lambda text: list(text.encode()))
    held_out = windows(parts.evaluation, LENGTH + 1, 128)
    losses: dict[str, list[float]] = {kind: [] for kind in ATTENTIONS}
    for seed in seeds:
        for kind in ATTENTIONS:
            torch.manual_seed(seed)
            model = decoder(kind, 256, **SIZES)
            train(model, parts.calibration, steps, seed, callback)
            losses[kind].append(loss(model, held_out))
    means = {kind: statistics.mean(values) for kind, values in losses.items()}
    best = min(value for kind, value in means.items() if kind != "tpa")
    return Result(
        "at equal parameters and steps, a decoder with tensor product attention has a held-out loss at most that of "
        "the best of multi-head, grouped-query, multi-query and latent attention (bytes, mean of the seeds)",
        means["tpa"] / best, "<=", 1.0,
        {"training text": digest(parts.calibration), "held-out text": digest(held_out)}, seeds[0],
        {"nats a byte, by seed": losses, "steps": steps, "parameters": {k: _size(k) for k in ATTENTIONS},
         "numbers a token and layer in the cache": {k: _cache_size(k) for k in ATTENTIONS}},
    )  # fmt: skip


def train(model: Decoder, ids: Tensor, steps: int, seed: int, callback: Callback | None = None) -> None:
    """AdamW with a warm-up and a cosine, on random windows; all kinds see the same ones."""
    g = Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.1)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / 20, 0.55 + 0.45 * math.cos(math.pi * i / steps))
    )
    for step in range(1, steps + 1):
        starts = torch.randint(len(ids) - LENGTH, (BATCH,), generator=g)
        batch = torch.stack([ids[s : s + LENGTH + 1] for s in starts.tolist()])
        nats = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        nats.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if callback is not None:
            callback(step, steps, {"stage": "training", "loss": float(nats)})


def loss(model: Decoder, held_out: Tensor) -> float:
    """Mean nats a byte."""
    with torch.no_grad():
        parts = [F.cross_entropy(model(w[:, :-1]).flatten(0, 1), w[:, 1:].flatten()) for w in held_out.split(16)]
    return float(torch.stack(parts).mean())


def _size(kind: str) -> int:
    return sum(p.numel() for p in decoder(kind, 256, **SIZES).parameters())


def _cache_size(kind: str) -> int:
    cache: Any = DynamicCache()
    decoder(kind, 256, **SIZES)(torch.ones(1, 1, dtype=torch.int64), cache)
    return cache.layers[0].keys.numel() + cache.layers[0].values.numel()
