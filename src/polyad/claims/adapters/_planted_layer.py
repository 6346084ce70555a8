"""One frozen layer and a planted change of it, to which adapters are fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from polyad.adapters import Adapters
from polyad.claims._data_hash import sha


@dataclass(frozen=True)
class Fit:
    """The weight that an adapter came to, the losses on the way, and the count of numbers that it trained."""

    weight: Tensor
    losses: list[float]
    parameters: int


@dataclass(frozen=True)
class Planted:
    """A frozen weight (out, in), the weight that the outputs follow, and inputs (rows, in)."""

    weight: Tensor
    target: Tensor
    x: Tensor
    noise: Tensor | None = None

    @property
    def y(self) -> Tensor:
        """The outputs that are fitted, with their noise."""
        clean = self.x @ self.target.mT
        return clean if self.noise is None else clean + self.noise

    @property
    def digest(self) -> dict[str, str]:
        """The sha256 of what was planted."""
        return {"planted layer": sha((self.weight, self.target, self.x, self.y))}

    def error(self, weight: Tensor) -> float:
        """The squared distance to the target, relative to that of the frozen weight."""
        return float((weight - self.target).square().sum() / (self.weight - self.target).square().sum())

    def fit(
        self,
        method: Any,
        *,
        lr: float,
        steps: int,
        seed: int = 0,
        rates: Mapping[str, float] | None = None,
        **arguments: Any,
    ) -> Fit:
        """Adam on all rows at once; losses are mean squares relative to the frozen layer's."""
        layer = nn.Linear(*reversed(self.weight.shape), bias=False, dtype=self.weight.dtype)
        layer.weight = nn.Parameter(self.weight.clone())
        model = nn.Sequential(layer)
        adapters = Adapters(model)
        adapters.attach("fitted", "*", method, seed=seed, **arguments)
        optimiser = torch.optim.Adam(adapters.groups("fitted", lr, rates))
        start, losses = float((self.x @ self.weight.mT - self.y).square().mean()), []
        for step in range(steps):
            adapters.before_step(step, steps)
            loss = (model(self.x) - self.y).square().mean() / start
            optimiser.zero_grad()
            (loss + adapters.penalty()).backward()
            adapters.after_backward(step, steps)
            optimiser.step()
            adapters.after_step(step, steps)
            losses.append(float(loss.detach()))
        count = sum(p.numel() for p in adapters.parameters("fitted"))
        adapters.merge()
        return Fit(layer.weight.detach().clone(), losses, count)


def normal(*shape: int, seed: int, std: float = 1.0) -> Tensor:
    """Normal numbers in float64, so that rounding plays no part."""
    return std * torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)
