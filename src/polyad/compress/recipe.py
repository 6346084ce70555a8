"""A recipe: one method or a short list of them, each with its arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from polyad import _check
from polyad._arguments import check_arguments, read_method
from polyad._card import Card, card

SIZE = {"decompose": "rank", "factor": "rank", "quantize": "bits", "group": "keep"}
"""The argument by which each kind of method is told how small to be."""
KINDS = (*SIZE, "rescale")
WRITE = "write a method's name with its arguments, such as modegpt or rtn:bits=4, its function, or a list of these"
ADDS = ("decompose", "factor")
"""Kinds that treat what earlier steps left over and add to what these made."""


@dataclass(frozen=True)
class Step:
    """A method and its arguments. ``rules`` restricts a group method to these kinds of blocks."""

    card: Card
    arguments: Mapping[str, Any] = field(default_factory=dict)
    rules: tuple[str, ...] = ("mlp", "qk", "vo")

    @property
    def kind(self) -> str:
        return self.card.kind

    @property
    def size(self) -> int | None:
        """The size given, for every item alike; None where the budget decides."""
        return self.arguments.get(SIZE.get(self.kind, ""))

    @property
    def sized_by_budget(self) -> bool:
        return self.kind in SIZE and self.size is None

    @property
    def options(self) -> dict[str, Any]:
        """The arguments but for the size."""
        return {k: v for k, v in self.arguments.items() if k != SIZE.get(self.kind)}

    def to_json(self) -> dict[str, Any]:
        """The step as a name and plain arguments."""
        rules = {"rules": "-".join(self.rules)} if self.kind == "group" else {}
        return {"method": self.card.name, "arguments": {**{k: _plain(v) for k, v in self.arguments.items()}, **rules}}


def _plain(value: Any) -> Any:
    """An argument as JSON holds it: a dtype by its name, and the text of whatever JSON has no word for."""
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


Recipe = str | Callable[..., Any] | Step | Iterable[str | Callable[..., Any] | Step]


def steps(recipe: Recipe) -> tuple[Step, ...]:
    """The steps of a text, of a method's function, of a ``functools.partial`` of one, or of a list of these.

    In a text, steps are joined by ``+``; each is a name and perhaps arguments after a colon. At most one step may be
    left for the budget to size.

    >>> from polyad import compress, quantize
    >>> [step.card.name for step in steps(compress.lord)]
    ['lord']
    >>> [step.card.name for step in steps("rtn:bits=4,group=64+eora:rank=32")]
    ['round_to_nearest', 'eora']
    """
    single = isinstance(recipe, str | Step) or callable(recipe)
    if not single and not isinstance(recipe, Iterable):
        raise TypeError(f"{recipe!r} is no recipe; {WRITE}")
    parts = tuple(step for part in ([recipe] if single else list(recipe)) for step in _read(part))  # pyright: ignore
    if not parts:
        raise ValueError(f"the recipe {recipe!r} is empty; give a method such as modegpt or rtn:bits=4, or a list")
    free = [step for step in parts if step.sized_by_budget]
    if len(free) > 1:
        sizes = ", ".join(f"{step.card.name}: {SIZE[step.kind]}=…" for step in free)
        names = " and ".join(step.card.name for step in free)
        raise ValueError(f"{names} both wait for the budget to size them; give all but one a size ({sizes})")
    return parts


def _read(part: Any) -> list[Step]:
    if isinstance(part, Step):
        return [part]
    if isinstance(part, str):
        texts = [text.strip() for text in part.split("+") if text.strip()]
        return [_step(*read_method(text, KINDS)) for text in texts]
    arguments: dict[str, Any] = {}
    if isinstance(part, functools.partial):
        if part.args:
            raise ValueError(f"{part.func.__name__} in a recipe takes its arguments by name, not by place")
        part, arguments = part.func, dict(part.keywords)
    if not callable(part):
        raise TypeError(f"{part!r} is no step of a recipe; {WRITE}")
    method = card(part, kinds=KINDS)
    return [_step(method, check_arguments(method, arguments))]


def _step(method: Card, given: Mapping[str, Any]) -> Step:
    rules = tuple(str(given.get("rules", "mlp-qk-vo")).split("-"))
    if set(rules) - {"mlp", "qk", "vo"}:
        raise ValueError(f"rules={'-'.join(rules)}: the rules are mlp, qk and vo, joined by a hyphen: rules=mlp-vo")
    size = given.get(SIZE.get(method.kind, ""))
    if size is not None and (isinstance(size, bool) or not isinstance(size, int)):
        example = f"{method.name}:{SIZE[method.kind]}=4"
        raise ValueError(
            f"{SIZE[method.kind]}={size!r} of {method.name} is not a whole number; write such as {example}"
        )
    return Step(method, {name: value for name, value in given.items() if name != "rules"}, rules)


def check_keep(parts: tuple[Step, ...], keep: float | None) -> None:
    """Refuse a share to keep that is missing, decides nothing, or sizes a step whose layers others change too."""
    free = next((step for step in parts if step.sized_by_budget), None)
    if free is None:
        if keep is not None:
            names = " and ".join(step.card.name for step in parts)
            raise ValueError(f"keep={keep} has nothing to decide: every size in {names} is given; leave keep out")
        return
    if keep is None:
        raise ValueError(f"{free.card.name} needs to know how much to keep: keep=0.8, or a size of its own")
    _check.share("keep", keep)
    place = parts.index(free)
    for number, other in enumerate(parts):
        follows = number > place and other.kind == "quantize"  # what it makes of each size is known
        if other is not free and other.kind != "rescale" and not follows:
            raise ValueError(
                f"keep cannot size {free.card.name} beside {other.card.name}, which changes the same layers; give "
                f"{free.card.name} a size of its own ({SIZE[free.kind]}=…) and leave keep out"
            )
