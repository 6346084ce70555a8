"""Lion against Adam on a small regression, each at its best learning rate. Seconds on one core."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor, nn

from polyad._callback import Callback
from polyad.claims._data_hash import sha
from polyad.claims.record import Line, Outcome, mean_and_error
from polyad.optim import Lion, Optimizer

MINUTES = 1
SEEDS, ROWS, WIDTH, STEPS = 6, 200, 8, 100
RATES = (0.001, 0.003, 0.01, 0.03)


def network(seed: int) -> nn.Sequential:
    """A small perceptron."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.Tanh(), nn.Linear(2 * WIDTH, 1))


def rows(seed: int) -> tuple[Tensor, Tensor]:
    """Normal inputs, and what another perceptron makes of them."""
    x = torch.randn(ROWS, WIDTH, generator=Generator().manual_seed(seed))
    with torch.no_grad():
        return x, network(seed + 100)(x)


def last_loss(optimiser: Any, seed: int) -> float:
    """The loss after the last step, at the best of the learning rates."""
    x, y = rows(seed)
    losses: list[float] = []
    for rate in RATES:
        model = network(seed)
        host = optimiser(model.parameters(), lr=rate)
        for _ in range(STEPS):
            host.zero_grad()
            (model(x) - y).square().mean().backward()
            host.step()
        losses.append(float((model(x) - y).detach().square().mean()))
    return min(losses)


def claim(callback: Callback | None = None) -> Outcome:  # noqa: ARG001 - too short to report progress
    """The loss that Lion reaches, over Adam's in as many steps."""
    pairs = [
        (last_loss(lambda p, lr: Optimizer(p, Lion(), lr=lr), seed), last_loss(torch.optim.Adam, seed))
        for seed in range(SEEDS)
    ]
    line = Line(
        assertion="in as many steps Lion reaches at most Adam's loss",
        **mean_and_error([lion / adam for lion, adam in pairs]),
        relation="<=",
        bound=1.0,
        seeds=SEEDS,
        data={"regressions": sha(tensor for seed in range(SEEDS) for tensor in rows(seed))},
        rival="Adam at the best of the same learning rates",
        tolerance=0.1,
    )
    return Outcome([line], {"losses of Lion and of Adam by seed": pairs})
