"""The training loop of adapters: any method, any loss, resumable after a kill."""

from __future__ import annotations

import fnmatch
import json
import math
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polyad._callback import Callback
from polyad.adapters.adapter import Adapter
from polyad.adapters.host.adapters import Adapters
from polyad.adapters.operations.absorb import absorb
from polyad.adapters.training.run_state import keep_run, refuse_sharded, resume_run, training_tensors
from polyad.train.gradients import DivergedError, refuse_gradients

WARM = 0.06
"""The share of the steps over which the learning rate rises; over the others it falls to zero, both linearly."""


@dataclass(frozen=True)
class Learned:
    """The result of a training: the loss of every step, the learning rate, and the seconds of all runs together."""

    losses: tuple[float, ...]
    rate: float
    seconds: float


def train(
    adapters: Adapters,
    name: str,
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    rate: float | None = None,
    warm: float = WARM,
    clip: float = 1.0,
    state: str | Path | None = None,
    every: int = 25,
    merges: Collection[int] = (),
    asked: Mapping[str, Any] | None = None,
    callback: Callback | None = None,
) -> Learned:
    """Train the adapter called ``name`` on ``loss(step)``, a scalar for each step from 0, and keep it attached.

    By the method's ``optimizer`` (AdamW unless it states another) without decay, at its ``learning_rate`` unless
    ``rate`` is given, times its ``learning_rates``: rising over the share ``warm`` of the steps, then falling to
    zero. Gradients longer than ``clip`` are shortened. The methods' hooks and penalties are called. With ``state``, a
    file, everything needed to go on is written there ``every`` so many steps, moved into place; a file that is there
    is read and training goes on from it to the same numbers, if ``loss`` depends on the step alone and the method
    keeps what it learns in parameters and buffers. ``asked`` says what the run is of: a file of another is refused.
    The caller removes the file. Where processes hold shards (FSDP2) there is no ``state``.
    Before the steps in ``merges`` the adapter, a LoQT, is absorbed into the weights below it, which the file then
    holds too; the loss of such a step is computed twice.
    ``callback(step, steps, values)`` is told the loss after every step.

    >>> model = nn.Sequential(nn.Linear(4, 4))
    >>> adapters = Adapters(model)
    >>> from polyad.adapters import LoRA
    >>> _ = adapters.attach("a", "0", LoRA, rank=2)
    >>> x = torch.eye(4)
    >>> learned = train(adapters, "a", lambda step: (model(x) - x).square().sum(), steps=30, rate=0.05)
    >>> learned.losses[-1] < learned.losses[0]
    True
    """
    if steps < 1:
        raise ValueError(f"steps={steps} trains nothing; ask for one step or more")
    optimizer, rate = optimizer_of(adapters, name, rate)
    rates = [group["lr"] for group in optimizer.param_groups]
    run_of = {**(asked or {}), "steps": steps, "rate": rate, "merges": sorted(merges)}
    identity = json.dumps(run_of, sort_keys=True, default=str)
    file = None if state is None else Path(state)
    tensors = training_tensors(adapters, name, below=bool(merges))
    if file is not None:
        refuse_sharded(file, name, tensors)
    run = resume_run(file, tensors, optimizer, identity)
    clock = time.perf_counter() - run.seconds
    for step in range(len(run.losses), steps):
        for group, highest in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = highest * _share(step, steps, warm)
        if step in merges:
            absorb(adapters, name, lambda step=step: loss(step))
        run.losses.append(step_of(adapters, optimizer, loss, step, steps, clip))
        run.seconds = time.perf_counter() - clock
        if file is not None and (step + 1) % every == 0 and step + 1 < steps:
            tensors = training_tensors(adapters, name, below=bool(merges))
            keep_run(file, tensors, optimizer, run, identity)
        if callback is not None:
            callback(step + 1, steps, {"stage": "training", "loss": run.losses[-1]})
    return Learned(tuple(run.losses), rate, run.seconds)


def optimizer_of(adapters: Adapters, name: str, rate: float | None) -> tuple[torch.optim.Optimizer, float]:
    """The method's optimiser over what is trained, each part at its share of ``rate``, by default the method's own;
    and the rate."""
    kind = type(next(iter(adapters.of(name).values())))
    rate = kind.learning_rate if rate is None else rate
    if not 0 < rate < math.inf:
        raise ValueError(f"rate={rate} is not a learning rate; give a number above 0, such as {kind.learning_rate}")
    if next(adapters.parameters(name), None) is None:
        raise ValueError(f"nothing of {name!r} is trained; thaw it first")
    groups: Any = adapters.groups(name, rate, _rates_that_apply(adapters, name, kind))
    return kind.optimizer(groups, weight_decay=0.0), rate  # pyright: ignore[reportCallIssue]


def step_of(
    adapters: Adapters,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[int], Tensor],
    step: int,
    steps: int,
    clip: float,
) -> float:
    """Take one step, with the hooks of the methods; return the loss without penalties."""
    adapters.before_step(step, steps)
    value = _scalar(loss(step), step)
    if not bool(torch.isfinite(value.detach())):
        raise DivergedError(f"the loss of step {step} is {float(value.detach())}; choose a lower learning rate")
    (value + adapters.penalty().to(value.device)).backward()
    refuse_gradients(_named(adapters, optimizer), step, float(value.detach()))
    adapters.after_backward(step, steps)
    nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)
    optimizer.step()
    adapters.after_step(step, steps)
    optimizer.zero_grad(set_to_none=True)
    return float(value.detach())


def _named(adapters: Adapters, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The parameters that an optimiser trains, by their names."""
    names = {
        id(p): f"{owner}.{key}" for owner in adapters.names for key, p in adapters.named_parameters(owner).items()
    }
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    return {names.get(id(p), f"parameter {i}"): p for i, p in enumerate(trained)}


def _scalar(value: Any, step: int) -> Tensor:
    """Refuse losses that are no single number, or that nothing trained has a part in."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(f"the loss of step {step} is {what}; return a tensor of one number, such as its mean()")
    if not value.requires_grad:
        raise ValueError(
            f"the loss of step {step} depends on nothing that is trained; let the adapter act (activate, and unmerge "
            "if it is merged), train it (thaw), and compute the loss without torch.no_grad()"
        )
    return value


def _rates_that_apply(adapters: Adapters, name: str, kind: type[Adapter]) -> Mapping[str, float]:
    """The method's own rates whose pattern fits a parameter; another is no error of the caller's."""
    trained = [key for key, p in adapters.named_parameters(name).items() if p.requires_grad]
    return {p: r for p, r in kind.learning_rates.items() if any(fnmatch.fnmatchcase(key, p) for key in trained)}


def _share(step: int, steps: int, warm: float) -> float:
    """The share of the learning rate at a step: a rise, and a fall that would reach zero after the last step."""
    rise = max(1, round(warm * steps))
    return (step + 1) / rise if step < rise else (steps - step) / max(1, steps - rise)
