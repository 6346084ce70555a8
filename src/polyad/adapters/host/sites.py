"""Where adapters go: what a model offers, and what patterns choose of it."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from polyad.adapters.frozen.frozen import suffix
from polyad.adapters.frozen.layer_kinds import frozen
from polyad.adapters.host.adapted import Adapted
from polyad.adapters.host.ambiguous_sites import (
    patterns_of,
    refuse_other_kinds,
    refuse_tied,
    refuse_twice,
    refuse_unreached,
)
from polyad.adapters.host.experts import AdaptedExperts, expert_parameters
from polyad.models.surgery import Which, matching

if TYPE_CHECKING:
    from polyad.adapters.host.adapters import Adapters

Parts = Mapping[str, Sequence[tuple[int, int]]]
"""Rows (first, end) of fused weights that each get an adapter of their own, by pattern on the layer's path."""

KINDS = ("linear", "conv", "experts", "embedding")


@dataclass(frozen=True)
class Site:
    """One weight, or part of one, that an adapter can change: the layer's path, and what of it."""

    path: str
    module: nn.Module
    kind: str
    shape: tuple[int, ...]
    part: tuple[int, int] | None = None
    parameter: str | None = None
    """The name of an expert parameter in the module, of shape (experts, out, in) or transposed."""

    @property
    def name(self) -> str:
        """What is matched by patterns and named in messages and files."""
        if self.parameter is not None:
            return f"{self.path}.{self.parameter}"
        return self.path + suffix(self.part)

    def fits(self, pattern: str) -> bool:
        """Whether a pattern matches the site's name, or its layer's path where it is a part."""
        return fnmatch.fnmatchcase(self.name, pattern) or fnmatch.fnmatchcase(self.path, pattern)

    @property
    def layer(self) -> nn.Module:
        """The module without adapters."""
        return self.module.layer if isinstance(self.module, Adapted | AdaptedExperts) else self.module


def offered(model: nn.Module) -> dict[str, Site]:
    """Every weight of a model that an adapter can change, by path; the ones inside adapted layers count as theirs."""
    found: dict[str, Site] = {}
    inside: tuple[str, ...] = ()
    for path, module in model.named_modules():
        if path.startswith(inside) and inside:
            continue
        if isinstance(module, Adapted | AdaptedExperts):
            inside = (*inside, path + ".")
        layer = module.layer if isinstance(module, Adapted | AdaptedExperts) else module
        base = frozen(layer)
        if base is not None:
            found[path] = Site(path, module, base.kind, base.shape)
        else:
            for name, shape in expert_parameters(layer).items():
                site = Site(path, module, "experts", shape, parameter=name)
                found[site.name] = site
    return found


def chosen(model: nn.Module, which: Which, of: Sequence[str], parts: Parts, *, tied: bool) -> list[Site]:
    """The sites that ``which`` names, each once, fused ones split into parts; anything doubtful is refused."""
    strange = sorted(set(of) - set(KINDS))
    if strange or not of:
        raise ValueError(f"of={tuple(of)} names no kinds of layers; choose from {', '.join(KINDS)}")
    which = which if callable(which) or isinstance(which, str) else patterns_of(which)
    every = offered(model)
    sites = {name: site for name, site in every.items() if site.kind in of}
    modules = {name: site.layer for name, site in sites.items()}
    refuse_other_kinds(which, every, sites)
    found = [sites[name] for name in matching(modules, which, f"{'/'.join(of)} layers")]
    refuse_twice(which, [site.name for site in found])
    refuse_unreached(found)
    if not tied:
        refuse_tied(model, found)
    return _split(found, parts)


def literal(path: str) -> str:
    """A pattern that matches this path alone.

    >>> literal("a[0].b")
    'a[[]0].b'
    """
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


def addressed(names: Iterable[str]) -> tuple[list[str], Parts]:
    """The patterns that choose the sites of these names and no others, and the parts among them.

    >>> addressed(["a.qkv[0:8]", "b"])
    (['a.qkv', 'b'], {'a.qkv': [(0, 8)]})
    """
    paths: set[str] = set()
    parts: dict[str, list[tuple[int, int]]] = {}
    for name in names:
        path, part = parted(name)
        paths.add(path)
        if part is not None:
            parts.setdefault(path, []).append(part)
    return sorted(paths), parts


def parted(name: str) -> tuple[str, tuple[int, int] | None]:
    """The path in a site's name, and the rows of its part: the inverse of ``path + suffix(part)``."""
    path, bracket, rows = name.removesuffix("]").partition("[")
    first, _, end = rows.partition(":")
    return path, (int(first), int(end)) if bracket else None


def sites_of(adapters: Adapters, name: str) -> list[Site]:
    """Where an adapter is."""
    there = offered(adapters.model)
    found: list[Site] = []
    for path, part in map(parted, adapters.of(name)):
        found += [there[path]] if part is None else _cut(there[path], [part])
    return found


def check_patterns(sites: Sequence[Site], **arguments: Any) -> None:
    """Refuse arguments by pattern, {pattern: value}, of which a pattern matches no site."""
    for argument, value in arguments.items():
        for pattern in value if isinstance(value, Mapping) else ():
            if not any(site.fits(pattern) for site in sites):
                raise ValueError(
                    f"{argument} has a value for {pattern!r}, which matches none of the {len(sites)} layers chosen; "
                    f"they are called {', '.join(site.name for site in sites[:3])}"
                )


def _split(sites: Sequence[Site], parts: Parts) -> list[Site]:
    check_patterns(sites, parts=parts)
    found: list[Site] = []
    for site in sites:
        own = [pattern for pattern in parts if fnmatch.fnmatchcase(site.name, pattern)]
        if len(own) > 1:
            raise ValueError(f"parts of {site.name} are given by {own[0]!r} and by {own[1]!r}; one must match")
        found += _cut(site, parts[own[0]]) if own else [site]
    return found


def _cut(site: Site, parts: Sequence[tuple[int, int]]) -> list[Site]:
    """One site a part."""
    if site.kind != "linear":
        raise ValueError(f"{site.name} is a layer of kind {site.kind}; only linear layers are fused and have parts")
    if not parts or not all(_is_pair(part) for part in parts):
        raise ValueError(
            f"parts={parts} of {site.name} are no parts of its {site.shape[0]} rows: [(first, end), ...]"
        )
    end = 0
    for first, last in sorted(parts):
        if not end <= first < last <= site.shape[0]:
            raise ValueError(
                f"part ({first}, {last}) of {site.name} is not within its {site.shape[0]} rows, or overlaps the part "
                f"before it, which ends at {end}; give (first, end) with each first at or after the last end"
            )
        end = last
    return [replace(site, shape=(b - a, site.shape[1]), part=(a, b)) for a, b in parts]


def _is_pair(part: Any) -> bool:
    return isinstance(part, tuple | list) and len(part) == 2 and all(isinstance(n, int) for n in part)
