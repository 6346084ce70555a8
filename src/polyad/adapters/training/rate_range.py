"""The learning rate that an adapter bears, from one short run over rising rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyad._callback import Callback
from polyad.adapters.host.adapters import Adapters
from polyad.adapters.training.loop import optimizer_of, step_of
from polyad.train.gradients import DivergedError

SPAN = 5
"""Steps whose changes are averaged, their median taken, against the noise of single batches."""
SHARE = 1 / 7
"""The share of the rate of the least loss that a run of a hundred steps or more is given. With a third, nine methods
that were trained at lower rates too had 2.8 times the better one in the mean (benchmarks/results/finetune.json)."""
LOST = 2.0
"""Nats above the frozen model's loss at which the run has seen enough."""


@dataclass(frozen=True)
class RateRange:
    """The effect of each rate: ``falls`` are losses with the adapter less those without it, on the same batches."""

    rates: tuple[float, ...]
    falls: tuple[float, ...]

    @property
    def best(self) -> float:
        """A share of the rate at which the loss had fallen most, to one digit of 1, 2 or 5."""
        smooth = [sorted(self.falls[max(0, i - SPAN + 1) : i + 1]) for i in range(len(self.falls))]
        middle = [part[len(part) // 2] for part in smooth]
        return _round(SHARE * self.rates[middle.index(min(middle))])


def rate_range(
    adapters: Adapters,
    name: str,
    loss: Callable[[int], Tensor],
    *,
    low: float = 1e-4,
    high: float = 1.0,
    steps: int = 40,
    without: Sequence[float] | None = None,
    callback: Callback | None = None,
) -> RateRange:
    """Train the adapter ``name`` on ``loss(step)`` while the rate rises from ``low`` to ``high`` by equal factors.

    Each loss is compared with that of the model without the adapter on the same batch, so that few steps tell: those
    are found on the way, or given as ``without``. The run ends early when the loss is far above. The adapter is left
    in a bad state: detach it, and attach it anew.

    >>> from polyad.adapters import LoRA
    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <...>
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    >>> adapters = Adapters(model)
    >>> _ = adapters.attach("a", "0", LoRA, rank=2)
    >>> x = torch.eye(4)
    >>> tried = rate_range(adapters, "a", lambda step: (model(x) - x).square().sum())
    >>> 0.003 < tried.best < 0.3
    True
    """
    _check_range(low, high, steps, without)
    optimizer, _ = optimizer_of(adapters, name, 1.0)
    shares = [group["lr"] for group in optimizer.param_groups]
    rates: list[float] = []
    falls: list[float] = []
    for step in range(steps):
        rate = low * (high / low) ** (step / (steps - 1))
        for group, share in zip(optimizer.param_groups, shares, strict=True):
            group["lr"] = share * rate
        plain = _without(adapters, name, loss, step) if without is None else without[step]
        try:
            value = step_of(adapters, optimizer, loss, step, steps, 1.0)
        except DivergedError as error:  # this rate and all above are too high
            if not rates:
                raise ValueError(
                    f"the loss or its gradient is not finite at the start, at any rate ({error}); look at the data "
                    "and the model"
                ) from error
            break
        rates.append(rate)
        falls.append(value - plain)
        if callback is not None:
            callback(step + 1, steps, {"stage": "rates", "rate": rate, "fall": falls[-1]})
        if falls[-1] > LOST:
            break
    return RateRange(tuple(rates), tuple(falls))


def _check_range(low: float, high: float, steps: int, without: Sequence[float] | None) -> None:
    if steps < 2:
        raise ValueError(f"steps={steps} try too few rates; give 2 or more")
    if not 0 < low < high < math.inf:
        raise ValueError(f"low={low} and high={high} bound no rates; give two positive numbers, the lower first")
    if without is not None and len(without) < steps:
        raise ValueError(f"without holds the losses of {len(without)} steps of {steps}; give one for each")


def _without(adapters: Adapters, name: str, loss: Callable[[int], Tensor], step: int) -> float:
    """The loss of a step while the adapter does not act."""
    weights = adapters.active
    adapters.activate({other: weight for other, weight in weights.items() if other != name})
    try:
        with torch.no_grad():
            return float(loss(step))
    finally:
        adapters.activate(weights)


def _round(rate: float) -> float:
    """The nearest of 1, 2 and 5 times a power of ten, by ratio."""
    power = 10.0 ** math.floor(math.log10(rate))
    return min((digit * power for digit in (1, 2, 5, 10)), key=lambda near: abs(math.log(near / rate)))
