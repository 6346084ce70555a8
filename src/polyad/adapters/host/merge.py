"""What can be merged: weights that are tensors, and that nobody else holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from torch import nn

from polyad.adapters.host.adapted import Adapted
from polyad.adapters.host.experts import AdaptedExperts
from polyad.formats import Format


def owners(model: nn.Module, banks: Iterable[nn.Module]) -> Counter[int]:
    """How many modules hold each parameter of a model, by the parameter's id; adapters and their banks aside."""
    aside = {id(inner) for bank in banks for inner in bank.modules()}
    for module in model.modules():
        if isinstance(module, Adapted | AdaptedExperts):
            aside |= {id(inner) for inner in module.adapters.modules()}
    plain = [module for module in model.modules() if id(module) not in aside]
    return Counter(id(p) for module in plain for p in module._parameters.values() if p is not None)


def refuse_unmergeable(path: str, layer: Adapted | AdaptedExperts, held: Mapping[int, int]) -> None:
    """Refuse to merge into formats, quantised weights and weights that other modules hold too."""
    if isinstance(layer, Adapted) and not layer.base.mergeable:
        weight = layer.base.held
        kind = type(weight).__name__ if isinstance(weight, Format) else type(layer.layer).__name__
        raise ValueError(
            f"the weight of {path} is held by {kind}, to which an update cannot be added; leave it unmerged, or put "
            "a dense layer in its place first"
        )
    for name, parameter in layer._parameters.items():
        if parameter is not None and held[id(parameter)] > 1:
            raise ValueError(f"{name} of {path} is shared with another module, which merging would change too")
