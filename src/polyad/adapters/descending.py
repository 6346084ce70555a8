"""Adam on a loss of steps: the short trainings that are no training of one adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


def descend(
    parameters: Iterable[Tensor],
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    rate: float,
    stage: str,
    callback: Callable[..., Any] | None = None,
) -> list[float]:
    """Adam at ``rate`` on ``loss(step)``; returns the losses. The rate falls as a cosine.

    A loss that is not finite is refused before it reaches the parameters. ``callback(step, steps, {"stage": stage,
    "loss": …})`` follows each step.

    >>> x = torch.nn.Parameter(torch.ones(3))
    >>> descend([x], lambda step: x.square().sum(), steps=50, rate=0.1, stage="going down")[-1] < 0.01
    True
    """
    if steps < 1:
        raise ValueError(f"steps={steps} leaves nothing to train; give 1 or more")
    optimizer = torch.optim.Adam(parameters, rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses: list[float] = []
    for step in range(steps):
        value = loss(step)
        losses.append(float(value.detach()))
        if not bool(torch.isfinite(value.detach())):
            raise ValueError(f"the loss of step {step} is {losses[-1]}; choose a lower rate than {rate}")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        if callback is not None:
            callback(step + 1, steps, {"stage": stage, "loss": losses[-1]})
    return losses
