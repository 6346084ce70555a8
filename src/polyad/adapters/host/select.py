"""The sites that patterns choose of a model, each once, fused ones split into parts."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from polyad.adapters.host.ambiguous_sites import (
    pattern_list,
    refuse_double_matches,
    refuse_other_kinds,
    refuse_tied,
    refuse_unreachable,
)
from polyad.adapters.host.sites import KINDS, Parts, Site, adaptable_sites, site_parts
from polyad.models.surgery import Which, select_by_path


def select_sites(model: nn.Module, which: Which, of: Sequence[str], parts: Parts, *, tied: bool) -> list[Site]:
    """The sites of the kinds ``of`` that ``which`` names; selections that are ambiguous or empty are refused."""
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
    refuse_unreachable(selected)
    if not tied:
        refuse_tied(model, selected)
    return _split_into_parts(selected, parts)


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
        patterns = [pattern for pattern in parts if fnmatch.fnmatchcase(site.name, pattern)]
        if len(patterns) > 1:
            raise ValueError(
                f"parts of {site.name} are given by {patterns[0]!r} and by {patterns[1]!r}; let one pattern match it"
            )
        split += site_parts(site, parts[patterns[0]]) if patterns else [site]
    return split
