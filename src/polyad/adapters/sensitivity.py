"""The sensitivity of trained numbers from step to step: a smoothed score, and its deviation."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad.adapters.sharded import whole


@torch.no_grad()
def sense(score: Tensor, level: Tensor, spread: Tensor, smooth: float, wander: float) -> None:
    """Move ``level`` towards |score| and ``spread`` towards its distance from that, in place.

    ``smooth`` and ``wander`` are the shares that stay. Both tensors are whole in every process, also where the score
    is sharded.
    """
    now = whole(score).abs()
    level.lerp_(now, 1 - smooth)
    spread.lerp_((now - level).abs(), 1 - wander)
