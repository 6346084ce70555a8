"""A small network that has learnt one task and is adapted to a near one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from polyad.adapters import Adapters

WIDTH, DEPTH, CLASSES = 64, 6, 10
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
"""Learning rates of Adam to choose from, the same for every method of a claim."""

Data = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Tuned:
    """The figures of an adapter at its best learning rate."""

    lr: float
    loss: float
    """The mean training loss of the last tenth of the steps."""
    held: float
    accuracy: float
    """On held-out rows, as ``held``, the loss there."""
    parameters: int
    trained: float
    """How many numbers were trained, on average over the steps."""
    losses: list[float] = field(repr=False, default_factory=list)

    def figures(self) -> dict[str, float]:
        """All figures but the losses on the way."""
        return {name: value for name, value in vars(self).items() if name != "losses"}


class Bench:
    """A perceptron of ``DEPTH`` square layers that has learnt a random teacher's classes, and a changed teacher's.

    The teacher's layers have changed by normal numbers of ``change`` times their size, so that the second task is
    near the first and the change has no structure. Of it there are ``rows`` rows to train on and 4000 held out.
    """

    def __init__(self, *, rows: int = 2000, change: float = 0.5, seed: int = 0) -> None:
        self.generator = Generator().manual_seed(seed)
        teacher = [self._normal(WIDTH, WIDTH) / WIDTH**0.5 for _ in range(2)] + [self._normal(CLASSES, WIDTH)]
        changed = [w + change * self._normal(*w.shape) * w.std() for w in teacher]
        self.model = perceptron(seed)
        steps(self.model, self._task(teacher, 20_000), self.model.parameters(), 3e-3, 600, seed)
        self.data, self.held = self._task(changed, rows), self._task(changed, 4000)
        self.before = loss_and_accuracy(self.model, self.held)

    @property
    def digest(self) -> dict[str, str]:
        """The sha256 of the held-out rows and classes."""
        x, y = self.held
        return {"planted classes, held out": hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()}

    def tune(self, method: Any, *, rates: Sequence[float] = RATES, count: int = 200, **how: Any) -> Tuned:
        """The run with the least held-out loss over the learning rates; ``how`` is what ``Adapters.attach`` takes."""
        runs = [tune_adapter(self.model, self.data, self.held, method, lr, count, **how) for lr in rates]
        return min(runs, key=lambda one: one.held if one.held == one.held else float("inf"))

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def _task(self, teacher: list[Tensor], count: int) -> Data:
        x = self._normal(count, WIDTH)
        y = x
        for w in teacher[:-1]:
            y = (1.5 * y @ w.mT).tanh()
        return x, (y @ teacher[-1].mT).argmax(1)


def perceptron(seed: int) -> nn.Sequential:
    """``DEPTH`` square layers and a classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [layer for _ in range(DEPTH) for layer in (nn.Linear(WIDTH, WIDTH), nn.GELU())]
        return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


def loss_and_accuracy(model: nn.Module, data: Data) -> tuple[float, float]:
    """The loss and the accuracy on these rows."""
    with torch.no_grad():
        scores = model(data[0])
        return float(F.cross_entropy(scores, data[1])), float((scores.argmax(1) == data[1]).float().mean())


def steps(
    model: nn.Module,
    data: Data,
    parameters: Iterable[nn.Parameter],
    lr: float,
    count: int,
    seed: int,
    *,
    adapters: Adapters | None = None,
    optimiser: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
) -> tuple[list[float], float]:
    """The losses of ``count`` steps on batches of 256 rows, and how many numbers were trained on average."""
    generator, trainable = Generator().manual_seed(seed), list(parameters)
    run, losses, trained = optimiser(trainable, lr=lr), [], 0
    for step in range(count):
        batch = torch.randint(len(data[0]), (256,), generator=generator)
        if adapters is not None:
            adapters.before_step(step, count)
        run.zero_grad()
        loss = F.cross_entropy(model(data[0][batch]), data[1][batch])
        (loss if adapters is None else loss + adapters.penalty()).backward()
        trained += sum(p.numel() for p in trainable if p.grad is not None)
        if adapters is not None:
            adapters.after_backward(step, count)
        run.step()
        if adapters is not None:
            adapters.after_step(step, count)
        losses.append(float(loss.detach()))
    return losses, trained / count


def tune_adapter(
    model: nn.Module,
    data: Data,
    held: Data,
    method: Any,
    lr: float,
    count: int,
    *,
    which: Any = "*",
    optimiser: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    seed: int = 0,
    **how: Any,
) -> Tuned:
    """Attach, train and detach again."""
    adapters = Adapters(model)
    adapters.attach("tuned", which, method, seed=seed, **how)
    try:
        trainable = list(adapters.parameters("tuned"))
        losses, trained = steps(model, data, trainable, lr, count, seed, adapters=adapters, optimiser=optimiser)
        last = losses[-max(count // 10, 1) :]
        loss, accuracy = loss_and_accuracy(model, held)
        size = sum(p.numel() for p in trainable)
        return Tuned(lr, sum(last) / len(last), loss, accuracy, size, trained, losses)
    finally:
        adapters.detach("tuned")
