"""Layers with adapters on them as one weight: what was frozen, and a low-rank part beside it."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from polyad.adapters.host.stand_in import StandIn
from polyad.formats import Dense, Format, LowRank, Sum


def is_adapted(module: nn.Module) -> bool:
    """True for a layer with adapters on it."""
    return isinstance(module, StandIn)


def weight_with_adapters(path: str, module: Any, base: Tensor | Format) -> Tensor | Format:
    """The weight of a layer with its active adapters, of which a LoRA file holds those that add a low-rank matrix."""
    merge = "merge it first: adapters.merge(keep=False)"
    if module.original is not None:
        raise ValueError(f"adapters are merged into {path} for the time being; {merge}")
    terms: list[LowRank] = []
    for name, weight in module.common.active.items():
        if name not in module.routes:
            continue
        for suffix, update in module.updates(name):
            if suffix or not isinstance(update, LowRank):
                raise ValueError(f"the adapter {name!r} on {path} is no low-rank matrix beside the weight; {merge}")
            terms.append(update if weight is None else update * float(weight))
        if any(term.adapter.bias_update(term.base) is not None for term in module.routes[name]):
            raise ValueError(f"the adapter {name!r} changes the bias of {path}, which no LoRA file does; {merge}")
    if not terms:
        return base
    return Sum((Dense(base) if isinstance(base, Tensor) else base, *terms))
