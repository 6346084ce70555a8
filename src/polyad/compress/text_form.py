"""Recipes and allocations as text, as the command line takes them: ``rtn:bits=4,group=64+eora:rank=32``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

from polyad._card import card, methods
from polyad._spelled import spelled
from polyad.compress.recipe import Step, step

SHORT = {"rtn": "round_to_nearest"}
"""Names that the field uses for a method, beside its own."""


def recipe_of(text: str) -> tuple[Step, ...]:
    """Steps joined by ``+``, each a name and perhaps arguments after a colon.

    >>> [s.card.name for s in recipe_of("rtn:bits=4,group=64+eora:rank=32")]
    ['round_to_nearest', 'eora']
    """
    parts = [part.strip() for part in text.split("+") if part.strip()]
    if not parts:
        raise ValueError(f"the method {text!r} is empty; give a name such as modegpt, or rtn:bits=4")
    return tuple(_step(part) for part in parts)


def allocation_of(text: str) -> Callable[..., dict[str, int]]:
    """The allocation of the catalogue that has this name, with arguments after a colon.

    >>> allocation_of("block_influence:temperature=0.2").keywords
    {'temperature': 0.2}
    """
    name, arguments = spelled(text)
    known = card(name)
    if known.kind != "allocate":
        there = ", ".join(c.name for c in methods("allocate"))
        raise ValueError(f"{name} is a method of kind {known.kind!r} and allocates nothing; choose one of {there}")
    allowed = set(inspect.signature(known.function).parameters) - {"items", "budget", "scores"}
    unknown = sorted(arguments.keys() - allowed)
    if unknown:
        takes = f"it takes {', '.join(sorted(allowed))}" if allowed else "it takes none"
        raise ValueError(f"{name} has no argument {', '.join(unknown)}; {takes}")
    return functools.partial(known.function, **arguments) if arguments else known.function


def _step(text: str) -> Step:
    name, arguments = spelled(text)
    return step(card(SHORT.get(name, name)), arguments)
