"""The contract of the catalogue: every method has a paper, a documented example and its kind's signature."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from torch import nn

from polyad._card import Card


@dataclass(frozen=True)
class Signature:
    """The arguments and the return type of the functions of a kind.

    ``leading`` are the positional arguments in order, ``optional`` those that may follow them; all others must be
    keyword-only. Where ``leading`` is None, the problem names them: one or more without a default. ``required`` are
    keyword-only arguments that must be there. ``returns`` names classes of which one must be the return annotation or
    its base; empty where any annotation will do.
    """

    leading: tuple[str, ...] | None
    optional: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    returns: tuple[str, ...] = ()


SIGNATURES: dict[str, tuple[Signature, ...]] = {
    "decompose": (Signature(("x",), ("rank",), returns=("Format",)),),
    "complete": (Signature(("observations",), ("rank",)),),
    "quantize": (Signature(("x",), ("bits",), returns=("Format",)),),
    "factor": (Signature(("weight", "stats", "rank"), returns=("Format",)),),
    "group": (Signature(("block", "weights", "stats", "keep"), returns=("Replacement",)),),
    "rescale": (Signature(("model",), required=("generator",), returns=("Replacement",)),),
    "allocate": (Signature(("items", "budget"), returns=("dict",)),),
    "measure": (Signature(("x",)), Signature(("model",))),
    "solve": (Signature(None, ("rank",)),),
    "sketch": (Signature(None, required=("generator",)),),
    "operation": (Signature(None, ("bits",)), Signature(None, ("teacher",))),
}
"""Kinds that are functions, or classes made as such; a method matches one of its kind's signatures."""

PROTOCOLS: dict[str, dict[str, tuple[str, ...]]] = {
    "adapter": {"update": ("base",), "forward": ("x", "y", "base")},
    "transform": {"init": ("param",), "update": ("grad", "state", "param")},
    "subspace": {"refresh": ("g",), "down": ("g",), "up": ("y",), "transport": ("state", "old", "new")},
    "codec": {
        "encode": ("keys", "values", "queries"), "scores": ("query", "stored", "turn"), "mix": ("weights", "stored"),
    },
    "layer": {"forward": ()},
    "schedule": {
        "start": ("model",), "groups": ("rate",), "before_step": ("step", "total"), "penalty": (),
        "after_backward": ("step", "total"), "after_step": ("step", "total"), "state_dict": (),
        "load_state_dict": ("state",),
    },
    "stream": {"state_dict": (), "load_state_dict": ("state",)},
}  # fmt: skip
"""Kinds that are classes: the methods they must have, and the names of their leading arguments."""

ATTRIBUTES = {"codec": ("block", "before_rotation", "layers", "bases")}
MODULES = frozenset({"adapter", "layer"})
SYNONYMS = {
    "tolerance": "tol", "n_iter": "max_iter", "num_iter": "max_iter", "iterations": "max_iter", "iters": "max_iter",
    "n_iters": "max_iter", "seed": "generator", "rng": "generator", "random_state": "generator", "n_bits": "bits",
    "nbits": "bits", "group_size": "group", "ranks": "rank",
}  # fmt: skip
"""Names that no method may use, because the arguments that all share have one name everywhere."""


def papers(card: Card) -> None:
    """At least one paper, with authors, a year, a title and a source of a known form."""
    assert card.papers, f"{card.name} cites no paper"
    for paper in card.papers:
        assert paper.authors, f"{card.name} cites a paper without authors: {paper}"
        assert paper.title, f"{card.name} cites a paper without a title: {paper}"
        assert 1800 < paper.year < 2100, f"{card.name} cites a paper of the year {paper.year}"
        recognised = paper.source.startswith(("doi:", "arXiv:", "isbn:"))
        assert recognised, f"{card.name} cites {paper.source!r}; write doi:..., arXiv:... or isbn:..."


def documentation(card: Card) -> None:
    """A docstring of its own with an example in doctest's form."""
    text = vars(card.function).get("__doc__") if isinstance(card.function, type) else card.function.__doc__
    assert text, f"{card.name} has no docstring"
    assert doctest.DocTestParser().get_examples(text), f"the docstring of {card.name} has no example (>>> ...)"


def signature(card: Card) -> None:
    """The signature of its kind for a function, the protocol of its kind for a class; no synonyms."""
    target = _class(card) if card.kind in PROTOCOLS else card.function
    if isinstance(target, type):
        _protocol(card, target)
    tried = [_misfit(card, form) for form in SIGNATURES.get(card.kind, ())]
    assert not tried or None in tried, f"{card.name}: " + ", or ".join(said for said in tried if said is not None)
    for name in inspect.signature(card.function).parameters:
        assert name not in SYNONYMS, f"{card.name} takes {name!r}; it is called {SYNONYMS[name]!r} everywhere"


def _misfit(card: Card, form: Signature) -> str | None:
    """The reason that a function does not fit a signature, or None where it fits."""
    parameters = inspect.signature(card.function).parameters.values()
    plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    positional = tuple(p.name for p in plain)
    leading = tuple(p.name for p in plain if p.default is p.empty) if form.leading is None else form.leading
    n = len(leading)
    if not n or positional[:n] != leading or positional[n:] != form.optional[: len(positional) - n]:
        allowed = ", ".join((*(leading or ("problem",)), *(f"[{name}]" for name in form.optional)))
        return f"the positional arguments are ({', '.join(positional)}), not ({allowed}); all others are keyword-only"
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        return "it takes *args; every argument has a name"
    absent = [name for name in form.required if name not in {p.name for p in parameters if p.kind == p.KEYWORD_ONLY}]
    if absent:
        return f"it lacks the keyword-only arguments {absent}"
    returned = card.function if isinstance(card.function, type) else _annotation(card.function)
    if returned is None:
        return "its return type is not annotated"
    names = (
        {cls.__name__ for cls in getattr(returned, "__origin__", returned).__mro__} if _is_class(returned) else set()
    )
    if form.returns and names.isdisjoint(form.returns):
        return f"it returns {returned}, not a {' or '.join(form.returns)}"
    if (
        card.makes is not None
        and _is_class(returned)
        and "Format" in form.returns
        and not issubclass(card.makes, returned)
    ):
        return f"it returns {returned.__name__}, but its card says that it makes {card.makes.__name__}"
    return None


def _protocol(card: Card, target: type) -> None:
    for name, leading in PROTOCOLS.get(card.kind, {}).items():
        method = getattr(target, name, None)
        assert callable(method), f"{card.name} has no method {name}"
        arguments = tuple(inspect.signature(method).parameters)[1 : 1 + len(leading)]
        assert arguments == leading, f"{card.name}.{name} takes {arguments} first, not {leading}"
    for name in ATTRIBUTES.get(card.kind, ()):
        present = hasattr(target, name) or name in getattr(target, "__annotations__", {})
        assert present, f"{card.name} has no attribute {name}"
    if card.kind in MODULES:
        assert issubclass(target, nn.Module), f"{card.name} is no torch.nn.Module"


def _class(card: Card) -> type:
    """The class itself, or the one that a function makes."""
    target = card.function if isinstance(card.function, type) else card.makes or _annotation(card.function)
    assert isinstance(target, type), f"{card.name} of kind {card.kind} is neither a class nor annotated to return one"
    return target


def _annotation(function: Callable[..., Any]) -> Any:
    return get_type_hints(function).get("return")


def _is_class(annotation: Any) -> bool:
    return isinstance(getattr(annotation, "__origin__", annotation), type)


CHECKS = (papers, documentation, signature)
"""Every check of a card, to parametrise over."""

__all__ = ["CHECKS", "PROTOCOLS", "SIGNATURES", "SYNONYMS", "Signature", "documentation", "papers", "signature"]
