"""How much a loss depends on each trained number, smoothed over steps, and how unsteadily."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad.adapters.sharded import whole


@torch.no_grad()
def sense(
    parameter: Tensor, level: Tensor, spread: Tensor, smooth: float, wander: float, *, weighed: bool = True
) -> None:
    """Move ``level`` towards |number · gradient| and ``spread`` towards its distance from that, in place.

    ``smooth`` and ``wander`` are the shares that stay. Nothing moves where there is no gradient.
    They are whole in every process, also where the parameter is sharded. Without ``weighed`` it is |gradient|.
    """
    if parameter.grad is not None:
        now = whole(parameter * parameter.grad if weighed else parameter.grad).abs()
        level.lerp_(now, 1 - smooth)
        spread.lerp_((now - level).abs(), 1 - wander)
