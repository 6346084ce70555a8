"""IA3 against LoRA of rank 1 where a task rescales a layer's outputs. Seconds on one core."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator

from polyad.adapters import IA3, LoRA
from polyad.claims._data_hash import sha
from polyad.claims.adapters._planted_layer import Planted
from polyad.claims.record import Line, Outcome, mean_and_error

MINUTES = 1
SEEDS, ROWS, WIDTH, STEPS = 6, 100, 16, 150
RATES = (0.01, 0.03, 0.1)


def task(seed: int, *, rescaled: bool) -> Planted:
    """A frozen weight, and the same with every row rescaled, or moved by as much in one direction."""
    generator = Generator().manual_seed(seed)
    weight, factors, direction = (
        torch.randn(*shape, generator=generator) for shape in ((WIDTH, WIDTH), (WIDTH, 1), (1, WIDTH))
    )
    change = 0.5 * factors * (weight if rescaled else direction)
    return Planted(weight, weight + change, torch.randn(ROWS, WIDTH, generator=generator))


def remaining_loss(method: Any, planted: Planted, seed: int, **arguments: Any) -> float:
    """The share of the frozen layer's loss that is left, at the best of the learning rates."""
    return min(planted.fit(method, lr=lr, steps=STEPS, seed=seed, **arguments).losses[-1] for lr in RATES)


def ratios(*, rescaled: bool) -> list[float]:
    """The loss that IA3 leaves over that of LoRA with twice its numbers, for every seed."""
    tasks = [task(seed, rescaled=rescaled) for seed in range(SEEDS)]
    return [
        remaining_loss(IA3, planted, seed) / remaining_loss(LoRA, planted, seed, rank=1)
        for seed, planted in enumerate(tasks)
    ]


def claim(callback: Any = None) -> Outcome:  # noqa: ARG001 - too short to report progress
    """The loss that IA3 leaves over LoRA's, where outputs are rescaled and where one direction is added."""
    tasks = [task(seed, rescaled=True) for seed in range(SEEDS)]
    of_rescaling, of_direction = ratios(rescaled=True), ratios(rescaled=False)
    line = Line(
        assertion="where a task rescales a layer's outputs, IA3 leaves less loss than LoRA with twice its numbers",
        **mean_and_error(of_rescaling),
        relation="<=",
        bound=1.0,
        seeds=SEEDS,
        data={"rescaled layers": sha(t for p in tasks for t in (p.weight, p.target, p.x))},
        rival="LoRA of rank 1",
        control="where the task adds one direction instead, IA3 leaves more: the ratios are in the details",
        tolerance=0.1,
    )
    return Outcome([line], {"ratios": of_rescaling, "where one direction is added": of_direction})
