"""What a training loop asks of adapters: groups of parameters, and calls around its steps."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from polyad.adapters.host import Adapters


def groups(parameters: Mapping[str, nn.Parameter], lr: float, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """One group a rate: parameters whose name matches a pattern of ``rates`` get so many times ``lr``."""
    found: dict[float, list[nn.Parameter]] = {}
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    for pattern in rates:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in trained):
            near = ", ".join(list(trained)[:3]) or "(there are none)"
            raise ValueError(f"the rate of {pattern!r} matches no parameter; they are called {near}")
    for name, parameter in trained.items():
        own = [pattern for pattern in rates if fnmatch.fnmatchcase(name, pattern)]
        if len(own) > 1:
            raise ValueError(f"the rate of {name} is given by {own[0]!r} and by {own[1]!r}; let one pattern match it")
        found.setdefault(rates[own[0]] if own else 1.0, []).append(parameter)
    return [{"params": own, "lr": lr * rate} for rate, own in found.items()]


def trainable(parameters: Iterable[nn.Parameter], flag: bool) -> None:
    """Train these parameters, or stop."""
    for parameter in parameters:
        parameter.requires_grad_(flag)


def tell(adapters: Adapters, when: str, step: int, total: int) -> None:
    """Call a hook of every active method with all its adapters of one name."""
    for name in adapters.common.active:
        own = list(adapters.of(name).values())
        getattr(type(own[0]), when)(own, step, total)


def trainer_callback(adapters: Adapters) -> Any:
    """A callback for transformers' ``Trainer`` that calls the hooks of the active adapters around its steps.

    The gradient of what they add to the loss (``penalty``) is added before the optimiser steps, since the Trainer
    takes the model's own loss; it is not in the loss that the Trainer reports, and clipping has happened.
    """
    from transformers import TrainerCallback

    class Steps(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            adapters.before_step(state.global_step, state.max_steps)

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            penalty = adapters.penalty()
            if penalty.requires_grad:
                penalty.backward()
            adapters.after_backward(state.global_step, state.max_steps)

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            adapters.after_step(state.global_step, state.max_steps)

    return Steps()
