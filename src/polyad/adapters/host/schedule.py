"""Services for a training loop: groups of parameters, and the hooks of methods around its steps."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polyad.adapters.adapter import Adapter


def parameter_groups(
    parameters: Mapping[str, nn.Parameter], lr: float, rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """One group a rate: parameters whose name matches a pattern of ``rates`` get so many times ``lr``."""
    by_rate: dict[float, list[nn.Parameter]] = {}
    trained = {name: p for name, p in parameters.items() if p.requires_grad}
    for pattern in rates:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in trained):
            near = ", ".join(list(trained)[:3]) or "(there are none)"
            raise ValueError(f"the rate of {pattern!r} matches no parameter; they are called {near}")
    for name, parameter in trained.items():
        matches = [pattern for pattern in rates if fnmatch.fnmatchcase(name, pattern)]
        if len(matches) > 1:
            raise ValueError(
                f"the rate of {name} is given by {matches[0]!r} and by {matches[1]!r}; let one pattern match it"
            )
        by_rate.setdefault(rates[matches[0]] if matches else 1.0, []).append(parameter)
    return [{"params": group, "lr": lr * rate} for rate, group in by_rate.items()]


def set_trainable(parameters: Iterable[nn.Parameter], flag: bool) -> None:
    """Train these parameters, or stop."""
    for parameter in parameters:
        parameter.requires_grad_(flag)


def call_hooks(adapters: Iterable[Mapping[str, Adapter]], when: str, step: int, total: int) -> None:
    """Call a hook of every method with all its adapters of one name."""
    for by_site in adapters:
        group = list(by_site.values())
        getattr(type(group[0]), when)(group, step, total)


def sum_penalties(adapters: Iterable[Mapping[str, Adapter]]) -> Tensor:
    """The sum of the adapters' terms of the loss; zero where none has one."""
    penalties = [adapter.penalty() for by_site in adapters for adapter in by_site.values()]
    terms = [term for term in penalties if term is not None]
    return torch.stack(terms).sum() if terms else torch.zeros(())
