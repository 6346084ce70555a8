"""IA3 against LoRA of rank 1 where a task rescales a layer's outputs. Seconds on one core."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from polyad.adapters import IA3, Adapters, LoRA
from polyad.claims._data_hash import sha
from polyad.claims.record import Line, Outcome, mean_and_error

MINUTES = 1
SEEDS, ROWS, WIDTH, STEPS = 3, 100, 16, 100
RATES = (0.01, 0.03, 0.1)


def task(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A frozen weight, inputs, and the outputs of the same weight with every row rescaled."""
    generator = Generator().manual_seed(seed)
    weight, factors = (torch.randn(*shape, generator=generator) for shape in ((WIDTH, WIDTH), (WIDTH, 1)))
    x = torch.randn(ROWS, WIDTH, generator=generator)
    return weight, x, x @ ((1 + 0.5 * factors) * weight).mT


def remaining_loss(method: Any, seed: int, **arguments: Any) -> float:
    """The share of the frozen layer's loss that is left, at the best of the learning rates."""
    weight, x, y = task(seed)
    losses: list[float] = []
    for rate in RATES:
        layer = nn.Linear(WIDTH, WIDTH, bias=False)
        layer.weight = nn.Parameter(weight.clone())
        model = nn.Sequential(layer)
        adapters = Adapters(model)
        adapters.attach("a", "*", method, seed=seed, **arguments)
        optimiser = torch.optim.Adam(adapters.parameters("a"), lr=rate)
        for _ in range(STEPS):
            optimiser.zero_grad()
            (model(x) - y).square().mean().backward()
            optimiser.step()
        left = (model(x) - y).detach().square().mean()
        losses.append(float(left / (x @ weight.mT - y).square().mean()))
    return min(losses)


def claim(callback: Any = None) -> Outcome:  # noqa: ARG001 - too short to report progress
    """The loss that IA3 leaves, over what LoRA leaves with twice its numbers."""
    pairs = [(remaining_loss(IA3, seed), remaining_loss(LoRA, seed, rank=1)) for seed in range(SEEDS)]
    line = Line(
        assertion="where a task rescales a layer's outputs, IA3 leaves less loss than LoRA with twice its numbers",
        **mean_and_error([ia3 / lora for ia3, lora in pairs]),
        relation="<=",
        bound=1.0,
        seeds=SEEDS,
        data={"rescaled layers": sha(tensor for seed in range(SEEDS) for tensor in task(seed))},
        rival="LoRA of rank 1",
        tolerance=0.1,
    )
    return Outcome([line], {"losses of IA3 and of LoRA by seed": pairs})
