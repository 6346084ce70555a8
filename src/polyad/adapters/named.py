"""Adapters by the names that the command line gives them: ``lora:rank=8,alpha=16``."""

from __future__ import annotations

import difflib
from functools import partial
from typing import Any

from polyad._card import methods
from polyad._spelled import spelled
from polyad.adapters.making import arguments_of

OWN = frozenset({"shape", "generator", "bank"})
"""Arguments that the host gives."""


def method_of(text: str) -> partial[Any]:
    """The adapter of the catalogue that has this name, with its arguments; ``dropout`` may be among them.

    >>> method_of("lora:rank=4,alpha=8").keywords
    {'rank': 4, 'alpha': 8}
    """
    name, given = spelled(text)
    known = {c.name: c for c in methods("adapter")}
    if name not in known:
        kind = next((f"is a method of kind {c.kind}, not an adapter" for c in methods() if c.name == name), None)
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near and kind is None else f"there are {', '.join(known)}"
        raise ValueError(f"{name} {kind}; {hint}" if kind else f"no adapter is called {name!r}; {hint}")
    chosen = known[name]
    takes = arguments_of(chosen.function) - OWN
    unknown = sorted(given.keys() - takes - {"dropout"})
    if unknown:
        raise ValueError(f"{name} has no argument {', '.join(unknown)}; it takes {', '.join(sorted(takes))}, dropout")
    return partial(chosen.function, **given)
