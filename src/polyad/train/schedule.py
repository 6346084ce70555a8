"""The interface of training procedures: calls around the steps of the plain loop, a penalty, groups of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class Schedule:
    """A training procedure, hosted by ``descend(model, loss, schedule=…)``; by itself it changes nothing.

    It is made of its settings alone and gets the model in ``start``. A step is ``before_step``, the loss and
    ``penalty`` with their gradients, ``after_backward``, clipping, the optimiser and ``after_step``, each called with
    the step, counted from 0, and their total. Layers and parameters may be exchanged in ``start`` and ``after_step``
    (a parameter of another size is another parameter): the loop asks for ``groups`` again, and the optimiser forgets
    those that are gone. After the last step the model is an ordinary one: no hook, mask or wrapper is left.

    What a schedule knows beside the model's tensors goes through ``state_dict``, so that a run that was killed goes
    on to the same numbers.

    >>> import torch
    >>> from polyad.train import descend
    >>> class Shrink(Schedule):
    ...     def penalty(self):
    ...         return 0.1 * sum(p.square().sum() for p in self.model.parameters())
    >>> model = nn.Linear(2, 1, bias=False)
    >>> losses = descend(model, lambda step: model(torch.ones(2)).sum() * 0, steps=50, rate=0.1, schedule=Shrink())
    >>> float(model.weight.detach().norm()) < 0.1
    True
    """

    model: nn.Module

    def start(self, model: nn.Module) -> None:
        """Take the model in, before anything else; a second call begins anew."""
        self.model = model

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Groups of parameters as torch's optimisers take them, each with its ``lr``; ``rate`` is the run's.

        Together they hold every parameter of the model that requires a gradient, once.
        """
        return [{"params": [p for p in self.model.parameters() if p.requires_grad], "lr": rate}]

    def before_step(self, step: int, total: int) -> None:
        """Called before the loss is computed."""

    def penalty(self) -> Tensor | None:
        """A term that is added to the loss; None where there is none."""
        return None

    def after_backward(self, step: int, total: int) -> None:
        """Called when gradients are there and the optimiser has not stepped."""

    def after_step(self, step: int, total: int) -> None:
        """Called when the optimiser has stepped."""

    def state_dict(self) -> dict[str, Tensor]:
        """All that a run needs beside the model's tensors to go on: masks, sizes, the state of a generator."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``, called after ``start``; gives the model the layers that it had then."""
