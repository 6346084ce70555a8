"""Reject selections of layers that are ambiguous or have no effect."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from polyad.adapters.host.sites import Site
from polyad.models.surgery import Which


def pattern_list(which: Any) -> list[str]:
    """Several patterns as a list; refuse an empty one, and entries that are no text."""
    patterns = list(which) if isinstance(which, Iterable) else []
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(f"which={patterns or which} names no layers; give a pattern, such as '*', or a predicate")
    return patterns


def refuse_other_kinds(which: Which, every: Mapping[str, Site], sites: Mapping[str, Site]) -> None:
    """Refuse patterns that match only layers of kinds that were not asked for."""
    patterns = [] if callable(which) else [which] if isinstance(which, str) else list(which)
    for pattern in patterns:
        other = sorted({s.kind for n, s in every.items() if n not in sites and fnmatch.fnmatchcase(n, pattern)})
        if other and not any(fnmatch.fnmatchcase(name, pattern) for name in sites):
            raise ValueError(f"the pattern {pattern!r} matches {other[0]} layers only; say so with of={tuple(other)}")


def refuse_double_matches(which: Which, names: Sequence[str]) -> None:
    """Refuse layers that two patterns match."""
    if callable(which) or isinstance(which, str):
        return
    for name in names:
        matches = [pattern for pattern in which if fnmatch.fnmatchcase(name, pattern)]
        if len(matches) > 1:
            raise ValueError(
                f"{name} is matched by {matches[0]!r} and by {matches[1]!r}; let one pattern match each layer"
            )


def refuse_unreachable(sites: Sequence[Site]) -> None:
    """Refuse layers whose adapter would never run: a model that is itself one layer, so that none can take its place,
    and the output layer of torch's attention, whose weight is read without the layer being called."""
    for site in sites:
        if not site.path:
            raise ValueError(f"the model is itself a {type(site.layer).__name__}; wrap it: nn.Sequential(model)")
        if isinstance(site.layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
            raise ValueError(
                f"{site.name} {site.shape} belongs to torch's MultiheadAttention, which reads its weight and never "
                "calls it, so that an adapter would change nothing; leave it out"
            )


def refuse_tied(model: nn.Module, sites: Sequence[Site]) -> None:
    """Refuse weights that two modules share and modules at two paths: an adapter would change one, merging both."""
    places: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, parameter in module._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), []).append(f"{path}.{name}" if path else name)
    for site in sites:
        weight = site.layer._parameters.get(site.parameter or "weight")
        shared = places.get(id(weight), [])
        if len(shared) > 1:
            other = next(place for place in shared if place.rpartition(".")[0] != site.path)
            raise ValueError(
                f"the weight of {site.name} {site.shape} is also {other}; leave this layer out, or say tied=True to "
                f"adapt {site.name} alone, which then cannot be merged"
            )
