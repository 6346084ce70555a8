"""Names of layers in folders of peft's: without those of wrappers, and as patterns that match one layer alone."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from polyad.adapters.host.sites import Site
from polyad.models.wrappers import INNER, plain_path

PREFIX = "base_model.model."
"""The prefix of every tensor's name in a folder of peft's."""

LONGEST, REPEATS = 4000, 4
"""Bounds of patterns of layers that a folder states."""


def unwrapped_path(path: str) -> str:
    """A layer's path without the names that wrappers put into it, at the start those of DDP too.

    >>> unwrapped_path("module._orig_mod.layers.0._checkpoint_wrapped_module.first")
    'layers.0.first'
    """
    words = plain_path(path).split(".")
    while len(words) > 1 and words[0] == "module":
        del words[0]
    return ".".join(words)


def plain_path_in(model: nn.Module, path: str) -> str:
    """The path that a layer of a model has where nothing wraps the model."""
    words: list[str] = []
    owner: Any = model
    for word in path.split("."):
        holds = (nn.DataParallel, nn.parallel.DistributedDataParallel)
        if word not in INNER and not (word == "module" and isinstance(owner, holds)):
            words.append(word)
        owner = getattr(owner, "_modules", {}).get(word)
    return ".".join(words)


def path_of(key: str) -> str:
    """The path in a tensor's name, behind peft's prefix and behind those of wrappers before it."""
    start, prefix, rest = key.partition(PREFIX)
    return rest if prefix and not unwrapped_path(f"{start}x").removesuffix("x") else key


def sites_by_path(every: Mapping[str, Site], paths: Iterable[str]) -> dict[str, Site]:
    """The site that each of these paths means: the one of that path, or that which differs in wrappers alone."""
    plain: dict[str, list[str]] = {}
    for path in every:
        plain.setdefault(unwrapped_path(path), []).append(path)
    sites: dict[str, Site] = {}
    for path in paths:
        alike = [path] if path in every else plain.get(unwrapped_path(path), [])
        if len(alike) == 1:
            sites[path] = every[alike[0]]
    return sites


def targets(paths: Iterable[str]) -> str:
    """A regular expression that peft matches with exactly these paths.

    >>> targets(["a.b", "c"])
    '(?:a\\\\.b|c)'
    """
    return f"(?:{'|'.join(map(re.escape, paths))})"


def layer_setting(stated: Mapping[str, Any], key: str, path: str, default: float) -> float:
    """A setting of a layer: that of the first pattern that its path ends with, else the general one, else peft's."""
    pattern = {"r": "rank_pattern"}.get(key, "alpha_pattern")
    for wanted, value in (stated.get(pattern) or {}).items():
        if layer_pattern(wanted).match(path):
            return value
    value = stated.get(key)
    return default if value is None else value


def layer_pattern(wanted: str) -> re.Pattern[str]:
    """peft's pattern for the ends of paths, compiled; one that could take for ever is refused."""
    refuse_endless(wanted)
    return compiled(rf"(.*\.)?({wanted})$")


@functools.lru_cache
def refuse_endless(wanted: str) -> None:
    """Refuse a regular expression of a folder that could take for ever.

    That takes two unbounded repetitions, one in the other or many after each other.
    """
    unbounded = len(re.findall(r"(?<!\\)[*+]|\{\d*,\d*\}", wanted))
    nested = re.search(r"[*+}][^()]*\)+\s*[*+{]", wanted) or (unbounded and re.search(r"\)[*+{]", wanted))
    if len(wanted) > LONGEST or unbounded > REPEATS or nested or re.search(r"\\\d|\(\?(?![:=!]|<[=!])", wanted):
        raise ValueError(
            f"the pattern {wanted[:60]!r} is longer than {LONGEST} characters, repeats more than {REPEATS} times or "
            "what is repeated already, or looks around: it could take for ever; name the layers by their paths"
        )


@functools.lru_cache
def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern that a folder states, compiled; what is none is refused."""
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"the pattern {pattern[:60]!r} is no regular expression ({error}); name the layers by their paths"
        ) from None
