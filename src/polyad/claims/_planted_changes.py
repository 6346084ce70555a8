"""A planted change to find, and a small network with several tasks: for claims about adapters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from polyad.adapters import Adapters
from polyad.adapters.host.build import Method


def normal(generator: Generator, *shape: int) -> Tensor:
    """Normal numbers in float32."""
    return torch.randn(shape, generator=generator)


def linear_model(weight: Tensor) -> nn.Sequential:
    """A model of one linear layer of this weight."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data = weight.clone()
    return nn.Sequential(layer)


def fit_adapter(
    weight: Tensor, target: Tensor, method: Method, *, steps: int = 400, lr: float = 0.02, seed: int = 0, **given: Any
) -> dict[str, float]:
    """An adapter of ``weight`` trained towards ``target`` from inputs of unit covariance.

    ``error`` is relative to the change that was asked for: 1 is what no adapter has.
    """
    model = linear_model(weight)
    adapters = Adapters(model)
    adapters.attach("a", "*", method, seed=seed, **given)
    descend(adapters, "a", lambda: (_whole(model) - target).square().sum() / (target - weight).square().sum(),
            steps=steps, lr=lr)  # fmt: skip
    with torch.no_grad():
        error = float((_whole(model) - target).norm() / (target - weight).norm())
    return {"error": error, "trained": sum(p.numel() for p in adapters.parameters("a") if p.requires_grad)}


def _whole(model: nn.Sequential) -> Tensor:
    """The matrix that the model multiplies with."""
    layer: Any = model[0]
    return model(torch.eye(layer.in_features)).mT


def descend(
    adapters: Adapters, name: str, loss: Callable[[], Tensor], *, steps: int, lr: float, also: Iterable[Tensor] = ()
) -> list[float]:
    """Adam under a cosine schedule, on the adapter and what else is given; the losses of all steps."""
    optimiser = torch.optim.Adam([*adapters.groups(name, lr), *({"params": [p], "lr": lr} for p in also)])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    losses: list[float] = []
    for step in range(steps):
        adapters.before_step(step, steps)
        optimiser.zero_grad()
        current = loss()
        (current + adapters.penalty()).backward()
        adapters.after_backward(step, steps)
        optimiser.step()
        adapters.after_step(step, steps)
        schedule.step()
        losses.append(float(current.detach()))
    return losses


class Tasks:
    """Classification by teachers that differ from the network's own in a few shared directions of its weights.

    ``base`` classifies what ``teacher(None)`` labels, exactly; task t adds to both hidden weights a combination of
    ``shared`` planted changes of rank ``rank``. Labels are drawn from the teacher's probabilities.
    """

    def __init__(
        self, count: int, *, shared: int = 4, rank: int = 2, sides: tuple[int, ...] = (24, 48, 48, 6), seed: int = 0,
        size: float = 1.0, sharp: float = 40.0,
    ) -> None:  # fmt: skip
        g = Generator().manual_seed(seed)
        self.sides, self.sharp = sides, sharp
        self.weights = [normal(g, n, m) / m**0.5 * 2**0.5 for m, n in itertools.pairwise(sides)]
        self.changes: list[list[Tensor]] = [[] for _ in range(count)]
        for weight in self.weights[:-1]:
            n, m = weight.shape
            planted = normal(g, shared, n, rank) @ normal(g, shared, rank, m) / (rank * m) ** 0.5
            for task_changes, mix in zip(self.changes, normal(g, count, shared) / shared**0.5, strict=True):
                task_changes.append(size * torch.einsum("k,knm->nm", mix, planted))

    def base(self) -> nn.Sequential:
        """The network before any task."""
        layers: list[nn.Module] = []
        for weight in self.weights:
            layers += [*linear_model(weight), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def draw_rows(self, task: int, rows: int, seed: int) -> tuple[Tensor, Tensor]:
        """Normal inputs, and labels drawn from the probabilities of the task's teacher."""
        g = Generator().manual_seed(1000 * seed + task)
        x = normal(g, rows, self.sides[0])
        h = x
        for weight, change in zip(self.weights[:-1], self.changes[task], strict=True):
            h = F.relu(h @ (weight + change).mT)
        chances = (self.sharp * h @ self.weights[-1].mT / self.sides[-2] ** 0.5).softmax(-1)
        return x, torch.multinomial(chances, 1, generator=g).squeeze(1)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of rows whose largest output is their label."""
    with torch.no_grad():
        return float((model(x).argmax(-1) == y).float().mean())


def tune(
    tasks: Tasks, task: int, adapters: Adapters, name: str, *, rows: int = 1000, steps: int = 150, lr: float = 0.02
) -> list[float]:
    """Train an attached adapter, alone, on a task; the losses of all steps."""
    adapters.activate(name)
    x, y = tasks.draw_rows(task, rows, seed=1)
    return descend(adapters, name, lambda: F.cross_entropy(adapters.model(x), y), steps=steps, lr=lr)


def held_out_accuracy(tasks: Tasks, task: int, adapters: Adapters, name: str | None) -> float:
    """The accuracy on rows of a task that were not trained on, with this adapter alone or none."""
    adapters.activate([] if name is None else name)
    return accuracy(adapters.model, *tasks.draw_rows(task, 4000, seed=2))
