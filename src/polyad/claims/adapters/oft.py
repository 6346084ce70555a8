"""OFT against LoRA of more numbers where a task rotates a layer's inputs. Seconds on one core."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator

from polyad.adapters import OFT, LoRA
from polyad.claims._data_hash import sha
from polyad.claims.adapters._planted_layer import Planted
from polyad.claims.record import Line, Outcome, mean_and_error

MINUTES = 1
SEEDS, ROWS, WIDTH, BLOCK, STEPS = 6, 100, 16, 4, 150
RATES = (0.01, 0.03, 0.1)


def task(seed: int, *, rotated: bool) -> Planted:
    """A frozen weight, and the same with blocks of its inputs rotated, or moved as far in one direction."""
    generator = Generator().manual_seed(seed)
    weight = torch.randn(WIDTH, WIDTH, generator=generator)
    rotations = OFT((WIDTH, WIDTH), block=BLOCK)
    with torch.no_grad():
        rotations.skew.copy_(0.3 * torch.randn(rotations.skew.shape, generator=generator))
        change = rotations.rotate(weight, rotations.rotations()) - weight
    if not rotated:
        one = torch.randn(WIDTH, 1, generator=generator) @ torch.randn(1, WIDTH, generator=generator)
        change = one * (change.norm() / one.norm())
    return Planted(weight, weight + change, torch.randn(ROWS, WIDTH, generator=generator))


def remaining_loss(method: Any, planted: Planted, seed: int, **arguments: Any) -> float:
    """The share of the frozen layer's loss that is left, at the best of the learning rates."""
    return min(planted.fit(method, lr=lr, steps=STEPS, seed=seed, **arguments).losses[-1] for lr in RATES)


def ratios(*, rotated: bool) -> list[float]:
    """The loss that OFT leaves with 24 numbers over that of LoRA with 32, for every seed."""
    tasks = [task(seed, rotated=rotated) for seed in range(SEEDS)]
    return [
        remaining_loss(OFT, planted, seed, block=BLOCK) / remaining_loss(LoRA, planted, seed, rank=1)
        for seed, planted in enumerate(tasks)
    ]


def claim(callback: Any = None) -> Outcome:  # noqa: ARG001 - too short to report progress
    """The loss that OFT leaves over LoRA's, where inputs are rotated and where one direction is added."""
    tasks = [task(seed, rotated=True) for seed in range(SEEDS)]
    of_rotation, of_direction = ratios(rotated=True), ratios(rotated=False)
    line = Line(
        assertion="where a task rotates a layer's inputs, OFT leaves less loss than LoRA of a third more numbers",
        **mean_and_error(of_rotation),
        relation="<=",
        bound=1.0,
        seeds=SEEDS,
        data={"rotated layers": sha(t for p in tasks for t in (p.weight, p.target, p.x))},
        rival="LoRA of rank 1",
        control="where the task adds one direction instead, OFT leaves more: the ratios are in the details",
        tolerance=0.1,
    )
    return Outcome([line], {"ratios": of_rotation, "where one direction is added": of_direction})
