"""LoRA-XS against LoRA of more numbers where a task mixes a layer's leading directions. Seconds on one core."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator

from polyad._callback import Callback
from polyad.adapters import LoRA, LoRAXS
from polyad.claims._data_hash import sha
from polyad.claims.adapters._planted_layer import Planted
from polyad.claims.record import Line, Outcome, mean_and_error

MINUTES = 1
SEEDS, ROWS, WIDTH, RANK, STEPS = 3, 100, 16, 5, 100
RATES = (0.01, 0.03, 0.1)


def task(seed: int) -> Planted:
    """A frozen weight, and the same with its five leading singular directions mixed."""
    generator = Generator().manual_seed(seed)
    weight = torch.randn(WIDTH, WIDTH, generator=generator)
    u, s, v = torch.linalg.svd(weight)
    mix = 0.5 * torch.randn(RANK, RANK, generator=generator)
    change = (u[:, :RANK] * s[:RANK]) @ mix @ v[:RANK]
    return Planted(weight, weight + change, torch.randn(ROWS, WIDTH, generator=generator))


def remaining_loss(method: Any, seed: int, **arguments: Any) -> float:
    """The share of the frozen layer's loss that is left, at the best of the learning rates."""
    return min(task(seed).fit(method, lr=lr, steps=STEPS, seed=seed, **arguments).losses[-1] for lr in RATES)


def claim(callback: Callback | None = None) -> Outcome:  # noqa: ARG001 - too short to report progress
    """The loss that LoRA-XS leaves with 25 numbers, over what LoRA leaves with 32."""
    pairs = [(remaining_loss(LoRAXS, seed, rank=RANK), remaining_loss(LoRA, seed, rank=1)) for seed in range(SEEDS)]
    line = Line(
        assertion="where a task mixes a layer's leading directions, LoRA-XS leaves less loss than a larger LoRA",
        **mean_and_error([xs / lora for xs, lora in pairs]),
        relation="<=",
        bound=1.0,
        seeds=SEEDS,
        data={"mixed layers": sha(t for seed in range(SEEDS) for t in (task(seed).weight, task(seed).target))},
        rival="LoRA of rank 1",
        tolerance=0.1,
    )
    return Outcome([line], {"losses of LoRA-XS and of LoRA by seed": pairs})
