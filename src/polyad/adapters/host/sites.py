"""The weights of a model that adapters can change, and their names."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from polyad.adapters.frozen.frozen import suffix
from polyad.adapters.frozen.layer_kinds import frozen_view
from polyad.adapters.host.adapted import Adapted
from polyad.adapters.host.experts import AdaptedExperts, expert_parameters
from polyad.models.surgery import matches
from polyad.models.wrappers import plain_path, unwrap

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
        """The name that patterns match, and that messages and files give."""
        if self.parameter is not None:
            return f"{self.path}.{self.parameter}"
        return self.path + suffix(self.part)

    def fits(self, pattern: str) -> bool:
        """True where a pattern matches the site's name, or its layer's path where it is a part."""
        return matches(self.name, pattern) or matches(self.path, pattern)

    @property
    def layer(self) -> nn.Module:
        """The module without adapters."""
        return self.module.layer if isinstance(self.module, Adapted | AdaptedExperts) else self.module


def adaptable_sites(model: nn.Module) -> dict[str, Site]:
    """Every weight of a model that an adapter can change, by name; those inside adapted layers count as theirs."""
    sites: dict[str, Site] = {}
    inside: tuple[str, ...] = ()
    for full, module in model.named_modules():
        path = plain_path(full)
        wrapper = unwrap(module) is not module
        if (path.startswith(inside) and inside) or path in sites or (wrapper and frozen_view(unwrap(module)) is None):
            continue
        if isinstance(module, Adapted | AdaptedExperts):
            inside = (*inside, path + ".")
        layer = module.layer if isinstance(module, Adapted | AdaptedExperts) else module
        base = frozen_view(layer)
        if base is not None:
            sites[path] = Site(path, module, base.kind, base.shape)
        else:
            for name, shape in expert_parameters(layer).items():
                site = Site(path, module, "experts", shape, parameter=name)
                sites[site.name] = site
    return sites


def literal(path: str) -> str:
    """A pattern that matches this path alone.

    >>> literal("a[0].b")
    'a[[]0].b'
    """
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


def patterns_for(names: Iterable[str], whole: Container[str] = ()) -> tuple[list[str], Parts]:
    """The patterns that choose the sites of these names and no others, and the parts among them; those in ``whole``
    are no parts, whatever their name looks like.

    >>> patterns_for(["a.qkv[0:8]", "b"])
    (['a.qkv', 'b'], {'a.qkv': [(0, 8)]})
    """
    paths: set[str] = set()
    parts: dict[str, list[tuple[int, int]]] = {}
    for name in names:
        path, part = (name, None) if name in whole else split_name(name)
        paths.add(literal(path))
        if part is not None:
            parts.setdefault(literal(path), []).append(part)
    return sorted(paths), parts


def split_name(name: str) -> tuple[str, tuple[int, int] | None]:
    """The path in a site's name, and the rows of its part: the inverse of ``path + suffix(part)``."""
    rows = re.fullmatch(r"(.*)\[(\d+):(\d+)\]", name, re.DOTALL)
    return (name, None) if rows is None else (rows[1], (int(rows[2]), int(rows[3])))


def sites_named(model: nn.Module, names: Iterable[str]) -> list[Site]:
    """The sites of these names, as ``Adapters.of`` gives them."""
    every = adaptable_sites(model)
    sites: list[Site] = []
    for name in names:
        path, part = (name, None) if name in every else split_name(name)
        sites += [every[path]] if part is None else site_parts(every[path], [part])
    return sites


def site_parts(site: Site, parts: Sequence[tuple[int, int]]) -> list[Site]:
    """One site for each part, rows (first, end), of a fused weight."""
    if site.kind != "linear":
        raise ValueError(f"{site.name} is a layer of kind {site.kind}; only linear layers are fused and have parts")
    if not parts or not all(_is_pair(part) for part in parts):
        raise ValueError(
            f"parts={parts} of {site.name} are not pairs of its {site.shape[0]} rows; give [(first, end), ...]"
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
