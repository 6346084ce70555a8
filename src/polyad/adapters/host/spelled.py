"""Adapters by the names that the command line gives them: ``lora:rank=8,alpha=16``."""

from __future__ import annotations

from functools import partial
from typing import Any

from polyad._card import card, methods
from polyad._spelled import spelled
from polyad.adapters.host.build import arguments_of

OWN = frozenset({"shape", "generator", "bank"})
"""Arguments that the host gives."""


def method_of(text: str) -> partial[Any]:
    """The adapter of the catalogue that has this name, with its arguments; ``dropout`` may be among them.

    >>> method_of("lora:rank=4,alpha=8").keywords
    {'rank': 4, 'alpha': 8}
    """
    name, given = spelled(text)
    chosen = card(name, hint="adapter")
    if chosen.kind != "adapter":
        known = ", ".join(c.name for c in methods("adapter"))
        raise ValueError(f"{name} is a method of kind {chosen.kind}, not an adapter; there are {known}")
    takes = arguments_of(chosen.function) - OWN
    unknown = sorted(given.keys() - takes - {"dropout"})
    if unknown:
        raise ValueError(f"{name} has no argument {', '.join(unknown)}; it takes {', '.join(sorted(takes))}, dropout")
    return partial(chosen.function, **given)
