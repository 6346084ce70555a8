"""Adam on a loss of steps, for short trainings other than those of adapters, and the host of schedules."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polyad._callback import Callback
from polyad.train.gradients import refuse_gradients
from polyad.train.schedule import Schedule
from polyad.train.state import keep, read_state, restore


def descend(
    parameters: nn.Module | Iterable[Tensor],
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    rate: float,
    stage: str = "training",
    clip: float = math.inf,
    state: str | Path | None = None,
    every: int = 25,
    asked: Mapping[str, Any] | None = None,
    schedule: Schedule | None = None,
    callback: Callback | None = None,
) -> list[float]:
    """Minimise ``loss(step)`` by Adam at ``rate``, which falls as a cosine. Returns the losses.

    ``parameters`` are tensors, or a module, of which everything that requires a gradient is trained. ``schedule``, a
    training procedure, takes part in every step of a module's training; the losses are without its penalty.
    A loss or a gradient that is not finite is refused before it reaches the parameters; gradients longer than
    ``clip`` are shortened. With ``state``, a file, the training is kept ``every`` so many steps and goes on from
    there to the same numbers, if the loss depends on the step alone; a file of a training of another ``asked`` is
    refused, and the caller removes it. ``callback(step, steps, {"stage": stage, "loss": …})`` follows each step.

    >>> x = torch.nn.Parameter(torch.ones(3))
    >>> descend([x], lambda step: x.square().sum(), steps=50, rate=0.1, stage="going down")[-1] < 0.01
    True
    """
    if steps < 1:
        raise ValueError(f"steps={steps} leaves nothing to train; give 1 or more")
    if schedule is not None and not isinstance(parameters, nn.Module):
        raise TypeError(f"parameters is a {type(parameters).__name__}; a schedule needs the whole model: give it")
    of = {**(asked or {}), **({} if schedule is None else {"schedule": _description(schedule)})}
    identity = json.dumps({**of, "steps": steps, "rate": rate}, sort_keys=True, default=str)
    schedule = _start(parameters, schedule)
    run = _Run(rate, schedule)
    file = None if state is None else Path(state)
    losses = [] if file is None else run.resume(file, identity)
    for step in range(len(losses), steps):
        schedule.before_step(step, steps)
        run.turn(1 + math.cos(math.pi * step / steps))
        value = loss(step)
        losses.append(float(value.detach()))
        if not math.isfinite(losses[-1]):
            raise ValueError(f"the loss of step {step} is {losses[-1]}; choose a lower rate than {rate}")
        run.step(value, step, steps, clip)
        if file is not None and (step + 1) % every == 0 and step + 1 < steps:
            stated = {"asked": identity, "losses": losses, "frozen": run.frozen_names()}
            keep(file, run.tensors(), run.optimizer, stated, schedule.state_dict())
        if callback is not None:
            callback(step + 1, steps, {"stage": stage, "loss": losses[-1]})
    return losses


def _start(parameters: nn.Module | Iterable[Tensor], schedule: Schedule | None) -> Schedule:
    """The schedule, started on a model; that of bare tensors where there is no model."""
    if not isinstance(parameters, nn.Module):
        return _Tensors(parameters)
    schedule = schedule or Schedule()
    schedule.start(parameters)
    return schedule


class _Tensors(Schedule):
    """No model and no procedure: these tensors, all at one rate."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.trained, self.model = list(tensors), nn.Module()
        for i, tensor in enumerate(self.trained):
            register = (
                self.model.register_parameter if isinstance(tensor, nn.Parameter) else self.model.register_buffer
            )
            register(str(i), tensor)  # pyright: ignore[reportArgumentType]

    def groups(self, rate: float) -> list[dict[str, Any]]:
        return [{"params": self.trained, "lr": rate}]


class _Run:
    """A schedule and the optimiser over its groups."""

    def __init__(self, rate: float, schedule: Schedule) -> None:
        self.rate, self.schedule = rate, schedule
        self.optimizer = self._renew(schedule.groups(rate))

    def _renew(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """An optimiser over these groups, of which ``rates`` keeps the learning rates."""
        if not any(group["params"] for group in groups):
            raise ValueError("nothing is left to train: no parameter of the schedule's groups requires a gradient")
        self.rates = [float(group.get("lr", self.rate)) for group in groups]
        return torch.optim.Adam(groups, self.rate)

    def turn(self, twice: float) -> None:
        """Set every learning rate to half of ``twice`` its own."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * twice / 2

    def step(self, value: Tensor, step: int, steps: int, clip: float) -> None:
        """Descend along the gradient of a loss."""
        self.optimizer.zero_grad()
        penalty = self.schedule.penalty()
        (value if penalty is None else value + penalty.to(value)).backward()
        refuse_gradients(self._named(), step, float(value.detach()))
        self.schedule.after_backward(step, steps)
        if clip < math.inf:
            nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], clip)
        self.optimizer.step()
        self.schedule.after_step(step, steps)
        self.follow()

    def _named(self) -> dict[str, Tensor]:
        """The parameters that are trained now, by their names."""
        names = {id(t): name for name, t in self.tensors().items()}
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        return {names.get(id(p), f"parameter {i}"): p for i, p in enumerate(trained)}

    def follow(self) -> None:
        """Train what the schedule says is trained now; what is known of parameters that are gone goes with them."""
        groups, before = self.schedule.groups(self.rate), self.optimizer
        if _members(groups) != _members(before.param_groups):
            self.optimizer = self._renew(groups)
            for p in (p for group in self.optimizer.param_groups for p in group["params"] if p in before.state):
                self.optimizer.state[p] = before.state[p]
        self.rates = [float(group.get("lr", self.rate)) for group in groups]

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training may change, by name."""
        return {**dict(self.schedule.model.named_parameters()), **dict(self.schedule.model.named_buffers())}

    def frozen_names(self) -> list[str]:
        """Names of the parameters that are not trained now."""
        return [name for name, p in self.schedule.model.named_parameters() if not p.requires_grad]

    def resume(self, file: Path, identity: str) -> list[float]:
        """Go on from a file, where there is one; the losses so far."""
        state = read_state(file, identity)
        if state is None:
            return []
        stated, numbers = state
        part = "schedule/"
        self.schedule.load_state_dict({k.removeprefix(part): t for k, t in numbers.items() if k.startswith(part)})
        tensors = self.tensors()
        for name, tensor in tensors.items():
            saved = numbers.get(f"tensor/{name}")
            if saved is None or saved.shape != tensor.shape:
                what = "no such tensor" if saved is None else f"the shape {tuple(saved.shape)}"
                raise ValueError(
                    f"{name} has the shape {tuple(tensor.shape)}, and {file} holds {what}; give the model that the "
                    "training began with, and let the schedule's load_state_dict bring back the layers it had"
                )
        for name, p in self.schedule.model.named_parameters():
            p.requires_grad_(name not in stated.get("frozen", ()))
        self.follow()
        restore(numbers, tensors, self.optimizer)
        return list(stated["losses"])


def _members(groups: Iterable[Mapping[str, Any]]) -> list[list[int]]:
    return [[id(p) for p in group["params"]] for group in groups]


def _description(schedule: Schedule) -> dict[str, Any]:
    """A schedule's name and plain settings, which say what a training is of."""
    plain = (int, float, str, bool, tuple, type(None))
    settings = {name: getattr(schedule, name, None) for name in inspect.signature(type(schedule)).parameters}
    return {"name": type(schedule).__name__, **{name: v for name, v in settings.items() if isinstance(v, plain)}}
