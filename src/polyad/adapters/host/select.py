"""The sites that patterns choose of a model, each once, fused ones split into parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from polyad.adapters.host.ambiguous_sites import (
    pattern_list,
    refuse_double_matches,
    refuse_other_kinds,
    refuse_tied,
    refuse_whole_model,
    without_uncalled,
)
from polyad.adapters.host.build import frozen_weight
from polyad.adapters.host.sites import KINDS, Parts, Site, adaptable_sites, site_parts
from polyad.models.surgery import Which, matches, select_by_path
from polyad.models.uncalled_layers import uncalled_layers
from polyad.models.wrappers import unwrap


class Selection(NamedTuple):
    """The sites chosen, and whether it is known that the model calls all of their layers."""

    sites: list[Site]
    called: bool


def select_sites(model: nn.Module, which: Which, of: Sequence[str], parts: Parts, *, tied: bool) -> Selection:
    """The sites of the kinds ``of`` that ``which`` names; selections that are ambiguous or empty are refused.

    Layers that the model reads without calling them are left out, or refused where ``which`` names them themselves.
    """
    unknown = sorted(set(of) - set(KINDS))
    if unknown or not of:
        raise ValueError(f"of={tuple(of)} names no kinds of layers; choose from {', '.join(KINDS)}")
    which = which if callable(which) or isinstance(which, str) else pattern_list(which)
    every = adaptable_sites(model)
    sites = {name: site for name, site in every.items() if site.kind in of}
    modules = {name: site.layer for name, site in sites.items()}
    refuse_other_kinds(which, every, sites)
    selected = [sites[name] for name in select_by_path(modules, which, f"{'/'.join(of)} layers")]
    refuse_double_matches(which, [site.name for site in selected])
    refuse_whole_model(selected)
    selected, called = _called_sites(model, which, selected)
    if not tied:
        refuse_tied(model, selected)
    return Selection(_split_into_parts(selected, parts), called)


def _called_sites(model: nn.Module, which: Which, sites: list[Site]) -> Selection:
    """Those of the sites that the model calls, as far as one short run of it tells."""
    functions = {site.path: frozen_weight(site).function for site in sites if site.parameter is None}
    refused = {path: function.reason for path, function in functions.items() if function and function.reason}
    sites = without_uncalled(which, sites, refused)
    owners = (unwrap(model.get_submodule(site.path.rpartition(".")[0])) for site in sites)
    if all(type(owner).forward is nn.Sequential.forward for owner in owners):
        return Selection(sites, True)
    reasons, complete = uncalled_layers(model)
    return Selection(without_uncalled(which, sites, reasons), complete)


def check_patterns(sites: Sequence[Site], **arguments: Any) -> None:
    """Refuse arguments by pattern, {pattern: value}, of which a pattern matches no site."""
    for argument, value in arguments.items():
        for pattern in value if isinstance(value, Mapping) else ():
            if not any(site.fits(pattern) for site in sites):
                raise ValueError(
                    f"{argument} has a value for {pattern!r}, which matches none of the {len(sites)} layers chosen; "
                    f"they are called {', '.join(site.name for site in sites[:3])}"
                )


def _split_into_parts(sites: Sequence[Site], parts: Parts) -> list[Site]:
    check_patterns(sites, parts=parts)
    split: list[Site] = []
    for site in sites:
        patterns = [pattern for pattern in parts if matches(site.name, pattern)]
        if len(patterns) > 1:
            raise ValueError(
                f"parts of {site.name} are given by {patterns[0]!r} and by {patterns[1]!r}; let one pattern match it"
            )
        split += site_parts(site, parts[patterns[0]]) if patterns else [site]
    return split
