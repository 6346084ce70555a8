"""The catalogue: the name of each method, the format that it makes, and its papers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar

from polyad._calls import refuse_in_words, with_arrays

KINDS = (
    "decompose", "complete", "quantize", "factor", "group", "rescale", "allocate", "measure",
    "adapter", "transform", "subspace", "schedule", "codec", "layer", "solve", "sketch", "stream", "operation",
)  # fmt: skip

NOUNS = {
    "decompose": "decomposition", "complete": "completion", "quantize": "quantiser", "factor": "factorisation",
    "group": "rule for blocks", "rescale": "rescaling", "allocate": "allocation", "codec": "cache codec",
    "transform": "optimiser's transform", "solve": "solver",
}  # fmt: skip
"""What a method of a kind is called in a sentence, where the kind's own name is no noun."""

PACKAGES = (
    "adapters", "algorithms", "allocate", "attention", "cache", "compress", "decompose", "evaluation", "layers",
    "linalg", "optim", "quantize",
)  # fmt: skip
"""The packages that have methods."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Paper:
    """A source: who, when, what, where (``doi:…``, ``arXiv:…`` or ``isbn:…``) and what of it is here.

    ``handle`` is the short name under which claims and documentation pages file the paper; classics that
    everyone builds on have none. ``adds`` says in a sentence what the method takes from this paper.
    """

    authors: str
    year: int
    title: str
    source: str
    handle: str | None = None
    adds: str = ""


@dataclass(frozen=True)
class Card:
    """One entry of the catalogue.

    ``needs`` maps a role to the calibration statistics that the method reads of it: the roles of a block, or ""
    where a method sees one layer. ``curve`` gives the squared errors that it leaves at sizes 0, 1, … without solving
    for each, ``template(shape, rank, **options)`` the format that it makes, on the meta device, from which its cost
    is known (one that makes a ``LowRank`` needs none), and ``allocate`` the allocation that its paper uses.
    ``example`` holds arguments with which the contract of its kind calls it, and ``exact`` those that differ where it
    is to lose nothing, or as little as it can; None where it always loses more than eight bits do. ``instead`` says
    when not to use it and what to use in its place, where a claim of its paper was found to fail. ``holds(shape,
    **options)`` bounds the bytes that it takes for a weight (out, in), or for a block's weights by role, beside these
    and their statistics; None where eight float64 numbers for each of the weight's are enough.
    """

    name: str
    kind: str
    function: Callable[..., Any]
    makes: type | None
    papers: tuple[Paper, ...]
    example: Mapping[str, Any] = field(default_factory=dict)
    needs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    curve: Callable[..., Any] | None = None
    allocate: Callable[..., Any] | None = None
    template: Callable[..., Any] | None = None
    exact: Mapping[str, Any] | None = None
    instead: str = ""
    holds: Callable[..., int] | None = None

    @property
    def module(self) -> str:
        return self.function.__module__

    @property
    def handles(self) -> tuple[str, ...]:
        return tuple(p.handle for p in self.papers if p.handle is not None)

    @property
    def summary(self) -> str:
        """The first paragraph of the docstring, on one line."""
        return " ".join(inspect.cleandoc(self.function.__doc__ or "").split("\n\n")[0].split())


_catalogue: dict[str, Card] = {}


def method(
    kind: str,
    *,
    papers: tuple[Paper, ...],
    makes: type | None = None,
    example: Mapping[str, Any] | None = None,
    exact: Mapping[str, Any] | None = None,
    needs: set[str] | Mapping[str, set[str]] | None = None,
    curve: Callable[..., Any] | None = None,
    allocate: Callable[..., Any] | None = None,
    template: Callable[..., Any] | None = None,
    name: str | None = None,
    instead: str = "",
    holds: Callable[..., int] | None = None,
) -> Callable[[_Function], _Function]:
    """Record a function or class in the catalogue and return it; wrong calls of it end in a sentence, and
    a decomposition takes NumPy arrays from then on.

    ``name`` is a class's name in the catalogue, in snake_case as its file; a function's is its own. The rest is as in
    ``Card``.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is not a kind of method; the kinds are {', '.join(KINDS)}")

    def record(function: _Function) -> _Function:
        function = refuse_in_words(function, name)
        if kind == "decompose" and inspect.isfunction(function):
            function = with_arrays(function)
        entry = name or function.__name__
        other = _catalogue.get(entry)
        if other is not None and other.function.__module__ != function.__module__:
            raise ValueError(f"two methods are called {entry!r}: in {other.module} and {function.__module__}")
        roles = {"": needs} if isinstance(needs, set) else dict(needs or {})
        wanted = {role: frozenset(statistics) for role, statistics in roles.items()}
        _catalogue[entry] = Card(
            entry, kind, function, makes, papers, dict(example or {}), wanted, curve, allocate, template, exact,
            instead, holds,
        )  # fmt: skip
        return function

    return record


def methods(kind: str | None = None) -> tuple[Card, ...]:
    """All cards of the catalogue, or those of one kind, sorted by name."""
    import_methods()
    cards = sorted(_catalogue.values(), key=lambda card: card.name)
    return tuple(card for card in cards if kind is None or card.kind == kind)


def import_methods() -> None:
    """Import every package that has methods: they are in the catalogue once their modules are imported."""
    for package in PACKAGES:
        import_module(f"polyad.{package}")


def _find(function: Callable[..., Any] | str) -> Card | None:
    return next((c for c in _catalogue.values() if c.name == function or c.function is function), None)


def card(function: Callable[..., Any] | str, *, kinds: tuple[str, ...] = ()) -> Card:
    """The card of a method, given the function or its name; with ``kinds``, of a method of one of these."""
    entry = _find(function)
    if entry is None:
        import_methods()
        entry = _find(function)
    if entry is not None and (not kinds or entry.kind in kinds):
        return entry
    import_methods()
    import difflib

    name = function if isinstance(function, str) else getattr(function, "__name__", str(function))
    names = sorted(c.name for c in _catalogue.values() if not kinds or c.kind in kinds)
    near = difflib.get_close_matches(name, names, n=3)
    *others, last = [NOUNS.get(kind, kind) for kind in kinds or ("method",)]
    wanted = " or ".join(filter(None, [", ".join(others), last]))
    there = f"there are {', '.join(names)}" if len(names) <= 30 else "polyad methods lists them"
    there = f"did you mean {' or '.join(near)}?" if near else there
    if entry is not None:
        raise ValueError(f"{name} is of kind {NOUNS.get(entry.kind, entry.kind)}, not {wanted}; {there}")
    raise ValueError(f"no {wanted} is called {name!r}; {there}")
