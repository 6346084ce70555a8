"""Recipes as text, as the command line takes them: ``round_to_nearest:bits=4,group=64+eora:rank=32``."""

from __future__ import annotations

from polyad._card import card
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


def _step(text: str) -> Step:
    name, arguments = spelled(text)
    return step(card(SHORT.get(name, name)), arguments)
