"""Choices of layers that could mean something else, or nothing: refused in a sentence."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from polyad.models.surgery import Which

if TYPE_CHECKING:
    from polyad.adapters.host.sites import Site


def patterns_of(which: Any) -> list[str]:
    """Several patterns as a list, whatever they came in; what holds none, or anything else, is refused."""
    patterns = list(which) if isinstance(which, Iterable) else []
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise ValueError(f"which={patterns or which} names no layers; give a pattern, such as '*', or a predicate")
    return patterns


def refuse_other_kinds(which: Which, every: Mapping[str, Site], sites: Mapping[str, Site]) -> None:
    """Patterns that match layers of kinds that were not asked for, and no others."""
    patterns = [] if callable(which) else [which] if isinstance(which, str) else list(which)
    for pattern in patterns:
        other = sorted({s.kind for n, s in every.items() if n not in sites and fnmatch.fnmatchcase(n, pattern)})
        if other and not any(fnmatch.fnmatchcase(name, pattern) for name in sites):
            raise ValueError(f"the pattern {pattern!r} matches {other[0]} layers only; say so with of={tuple(other)}")


def refuse_twice(which: Which, names: Sequence[str]) -> None:
    """Layers that two patterns match."""
    if callable(which) or isinstance(which, str):
        return
    for name in names:
        own = [pattern for pattern in which if fnmatch.fnmatchcase(name, pattern)]
        if len(own) > 1:
            raise ValueError(f"{name} is matched by {own[0]!r} and by {own[1]!r}; let one pattern match each layer")


def refuse_unreached(sites: Sequence[Site]) -> None:
    """A model that is itself a layer has no place to put another in; the weight of an attention's output is read by
    torch's module without its layer being called."""
    for site in sites:
        if not site.path:
            raise ValueError(f"the model is itself a {type(site.layer).__name__}; wrap it: nn.Sequential(model)")
        if isinstance(site.layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
            raise ValueError(
                f"{site.name} {site.shape} belongs to torch's MultiheadAttention, which reads its weight and never "
                "calls it, so that an adapter would change nothing; leave it out"
            )


def refuse_tied(model: nn.Module, sites: Sequence[Site]) -> None:
    """A weight of two modules, or a module at two paths: an adapter would change one of them, merging both."""
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
