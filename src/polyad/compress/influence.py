"""Statistics of the layers in which items stand, for allocations that read them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from polyad._card import methods
from polyad.models.blocks import decoder_layers
from polyad.statistics import Moments, required

ROLE = "layer"
"""The role under which an allocation's card names statistics of whole layers."""


def layer_needs(model: nn.Module, chooser: Callable[..., Any]) -> dict[str, set[str]]:
    """The statistics of the decoder's layers that an allocation reads, by path; none for most."""
    names = layers_read_by(chooser)
    return {path: set(names) for path in decoder_layers(model)} if names else {}


def layers_read_by(chooser: Callable[..., Any]) -> frozenset[str]:
    """The statistics of layers in an allocation's card; none for a function that is not in the catalogue."""
    function = chooser.func if isinstance(chooser, functools.partial) else chooser
    return next((c.needs.get(ROLE, frozenset()) for c in methods("allocate") if c.function is function), frozenset())


def with_influence(
    chooser: Callable[..., Any], model: nn.Module, items: Iterable[str], stats: Mapping[str, Moments]
) -> Callable[..., Any]:
    """The allocation with the block influence of every item's layer as its ``scores``, where it asks for that."""
    if not layers_read_by(chooser):
        return chooser
    layers = decoder_layers(model)
    scores: dict[str, float] = {}
    for item in items:
        home = next((path for path in layers if item.startswith(path + ".")), None)
        if home is None:
            raise ValueError(
                f"{item} is in none of the {len(layers)} layers of the decoder, so it has no block influence; leave "
                "it out of the selection, or allocate with greedy"
            )
        scores[item] = float(required(stats[home].influence, "influence"))
    return functools.partial(chooser, scores=scores)
