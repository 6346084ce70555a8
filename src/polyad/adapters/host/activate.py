"""Activation of adapters: their weights, and the rows of a batch that each takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from polyad import _check
from polyad.adapters.host.adapted_layers import AdaptedLayers
from polyad.adapters.host.routing import Routing
from polyad.adapters.host.trained import refuse_trained, switch_places

Active = str | Sequence[str] | Mapping[str, float | Tensor | None]
"""A name, several names, or weights by name."""


def activate(layers: AdaptedLayers, which: Active) -> None:
    """Let these adapters act and no others."""
    layers.refuse_merged("activate")
    names = [which] if isinstance(which, str) else list(which)
    for name in names:
        layers.refuse_unknown(name)
    if len(set(names)) < len(names):
        raise ValueError(f"{names} names an adapter twice; give it a weight instead: {{{names[0]!r}: 2.0}}")
    stated = which if isinstance(which, Mapping) else dict.fromkeys(names)
    weights = {name: _weight(name, stated[name]) for name in names}
    switch_places(layers.common.trained, weights)
    layers.common.active = weights
    for layer in layers.by_path.values():
        layer.activate(weights)


def _weight(name: str, weight: Any) -> Tensor | None:
    """An adapter's weight as a tensor without dimensions; None for 1, which costs nothing."""
    if weight is None or (isinstance(weight, int | float) and weight == 1):
        return None
    if not isinstance(weight, Real | Tensor) or (isinstance(weight, Tensor) and weight.numel() != 1):
        raise TypeError(f"the weight of {name} is {weight!r}; give a number, such as {{{name!r}: 0.5}}")
    return _check.finite(f"the weight of {name}", torch.as_tensor(weight, dtype=torch.float64).reshape(()))


@contextmanager
def route_rows(layers: AdaptedLayers, names: Sequence[str | None]) -> Iterator[None]:
    """Within it, in this thread, row i of every batch passes through the adapter ``names[i]`` alone, or through none
    for None."""
    layers.refuse_merged("route rows")
    for name in {name for name in names if name is not None}:
        layers.refuse_unknown(name)
    refuse_trained(
        layers.common.trained, [*layers.common.active, *filter(None, names)],
        "routed() gives each row an adapter, and all rows share that; activate([]) and run the rows of each adapter "
        "in a batch of its own",
    )  # fmt: skip
    device = layers.device()
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        if name is not None:
            rows.setdefault(name, []).append(i)
    routing = Routing({name: torch.tensor(index, device=device) for name, index in rows.items()}, len(names))
    with layers.common.routings.put_in_force(routing):
        yield
