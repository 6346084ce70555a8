"""Reject selections of layers that are ambiguous or have no effect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from polyad.adapters.host.sites import Site, literal
from polyad.models.surgery import Which, matches


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
        other = sorted({s.kind for n, s in every.items() if n not in sites and matches(n, pattern)})
        if other and not any(matches(name, pattern) for name in sites):
            raise ValueError(f"the pattern {pattern!r} matches {other[0]} layers only; say so with of={tuple(other)}")


def refuse_double_matches(which: Which, names: Sequence[str]) -> None:
    """Refuse layers that two patterns match."""
    if callable(which) or isinstance(which, str):
        return
    for name in names:
        fitting = [pattern for pattern in which if matches(name, pattern)]
        if len(fitting) > 1:
            raise ValueError(
                f"{name} is matched by {fitting[0]!r} and by {fitting[1]!r}; let one pattern match each layer"
            )


def refuse_whole_model(sites: Sequence[Site]) -> None:
    """Refuse a model that is itself one layer, so that none can take its place."""
    for site in sites:
        if not site.path:
            raise ValueError(f"the model is itself a {type(site.layer).__name__}; wrap it: nn.Sequential(model)")


def without_uncalled(which: Which, sites: Sequence[Site], reasons: Mapping[str, str]) -> list[Site]:
    """The sites less those whose layer the model never calls, for these reasons by path; refused where ``which``
    names one of these itself, not by a pattern, or names no others."""
    stated = [] if callable(which) else [which] if isinstance(which, str) else list(which)
    for site in sites:
        if site.path in reasons and {site.name, literal(site.name)} & set(stated):
            raise ValueError(uncalled_sentence(site.path, site.layer, reasons[site.path]))
    rest = [site for site in sites if site.path not in reasons]
    if sites and not rest:
        raise ValueError(uncalled_sentence(sites[0].path, sites[0].layer, reasons[sites[0].path]))
    return rest


def uncalled_sentence(path: str, layer: nn.Module, reason: str) -> str:
    """The refusal of an adapter on a layer that the model does not call."""
    return f"an adapter cannot act on {path}, a {type(layer).__name__}: {reason}; leave this layer out"


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
