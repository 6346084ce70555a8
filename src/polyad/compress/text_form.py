"""Recipes and allocations as text, as the command line takes them: ``rtn:bits=4,group=64+eora:rank=32``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from polyad._card import card, methods
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
    name, arguments = _named(text)
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
    name, arguments = _named(text)
    return step(card(SHORT.get(name, name)), arguments)


def _named(text: str) -> tuple[str, dict[str, Any]]:
    """A name, and the arguments after a colon."""
    name, _, rest = text.partition(":")
    arguments: dict[str, Any] = {}
    for item in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"{item!r} in {text!r} is not an argument; write {name}:argument=value,…")
        arguments[key.strip()] = plain(value.strip())
    return name.strip(), arguments


def plain(value: str) -> Any:
    """A number, a truth value, None, a torch dtype, a tuple of numbers joined by x, or the text itself.

    >>> plain("4"), plain("0.5"), plain("true"), plain("64x1"), plain("mlp")
    (4, 0.5, True, (64, 1), 'mlp')
    """
    import torch

    lowered = value.lower()
    if lowered in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[lowered]
    if isinstance(getattr(torch, lowered, None), torch.dtype):
        return getattr(torch, lowered)
    for read in (int, float, lambda text: tuple(int(n) for n in text.split("x"))):
        try:
            return read(value)
        except ValueError:
            continue
    return value
