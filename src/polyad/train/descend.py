"""Adam on a loss of steps, for short trainings other than those of adapters."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyad.train.state import keep, resume


def descend(
    parameters: Iterable[Tensor],
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    rate: float,
    stage: str,
    clip: float = math.inf,
    state: str | Path | None = None,
    every: int = 25,
    asked: Mapping[str, Any] | None = None,
    callback: Callable[..., Any] | None = None,
) -> list[float]:
    """Minimise ``loss(step)`` by Adam at ``rate``, which falls as a cosine. Returns the losses.

    A loss that is not finite is refused before it reaches the parameters; gradients longer than ``clip`` are
    shortened. With ``state``, a file, the training is kept ``every`` so many steps and goes on from there to the same
    numbers, if the loss depends on the step alone; a file of a training of another ``asked`` is refused, and the
    caller removes it. ``callback(step, steps, {"stage": stage, "loss": …})`` follows each step.

    >>> x = torch.nn.Parameter(torch.ones(3))
    >>> descend([x], lambda step: x.square().sum(), steps=50, rate=0.1, stage="going down")[-1] < 0.01
    True
    """
    if steps < 1:
        raise ValueError(f"steps={steps} leaves nothing to train; give 1 or more")
    parameters = list(parameters)
    optimizer = torch.optim.Adam(parameters, rate)
    by_name = {str(i): p for i, p in enumerate(parameters)}
    identity = json.dumps({**(asked or {}), "steps": steps, "rate": rate}, sort_keys=True, default=str)
    file = None if state is None else Path(state)
    progress = None if file is None else resume(file, by_name, optimizer, identity)
    losses: list[float] = [] if progress is None else list(progress["losses"])
    for step in range(len(losses), steps):
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        value = loss(step)
        losses.append(float(value.detach()))
        if not math.isfinite(losses[-1]):
            raise ValueError(f"the loss of step {step} is {losses[-1]}; choose a lower rate than {rate}")
        optimizer.zero_grad()
        value.backward()
        if clip < math.inf:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        if file is not None and (step + 1) % every == 0 and step + 1 < steps:
            keep(file, by_name, optimizer, {"asked": identity, "losses": losses})
        if callback is not None:
            callback(step + 1, steps, {"stage": stage, "loss": losses[-1]})
    return losses
