"""A recipe: one method or a short list of them, each with its arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from polyad import _check
from polyad._card import Card, card

SIZE = {"decompose": "rank", "factor": "rank", "quantize": "bits", "group": "keep"}
"""The argument by which each kind of method is told how small to be."""
KINDS = (*SIZE, "rescale")
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
        return {"method": self.card.name, "arguments": {**{k: str(v) if isinstance(v, type) else v
                for k, v in self.arguments.items()}, **rules}}  # fmt: skip


Recipe = Callable[..., Any] | Step | Iterable[Callable[..., Any] | Step]


def steps(recipe: Recipe) -> tuple[Step, ...]:
    """The steps of a method's function, a ``functools.partial`` of one, or a list of these.

    At most one step may be left for the budget to size.

    >>> from polyad.compress import lord
    >>> [step.card.name for step in steps(lord)]
    ['lord']
    """
    single = callable(recipe) or isinstance(recipe, Step)
    found = tuple(_step(part) for part in ([recipe] if single else list(recipe)))  # pyright: ignore
    if not found:
        raise ValueError("the recipe is empty; give a method such as polyad.compress.modegpt, or a list of them")
    free = [step.card.name for step in found if step.sized_by_budget]
    if len(free) > 1:
        sizes = ", ".join(f"{step.card.name}: {SIZE[step.kind]}=…" for step in found if step.sized_by_budget)
        raise ValueError(
            f"{' and '.join(free)} both wait for the budget to size them; give all but one a size ({sizes})"
        )
    return found


def _step(part: Any) -> Step:
    if isinstance(part, Step):
        return part
    arguments: dict[str, Any] = {}
    if isinstance(part, functools.partial):
        if part.args:
            raise ValueError(f"{part.func.__name__} in a recipe takes its arguments by name, not by place")
        part, arguments = part.func, dict(part.keywords)
    known = card(part)
    return step(known, arguments)


def step(known: Card, arguments: Mapping[str, Any]) -> Step:
    """A step of a recipe; unknown arguments and methods that do not compress weights are refused."""
    import inspect

    if known.kind not in KINDS:
        raise ValueError(f"{known.name} is a method of kind {known.kind!r} and cannot compress a model's weights")
    arguments = dict(arguments)
    rules = tuple(str(arguments.pop("rules", "mlp-qk-vo")).split("-"))
    if set(rules) - {"mlp", "qk", "vo"}:
        raise ValueError(f"rules={'-'.join(rules)}: the rules are mlp, qk and vo, joined by a hyphen: rules=mlp-vo")
    allowed = {p for p in inspect.signature(known.function).parameters if p not in ("generator", "callback", "stats")}
    unknown = arguments.keys() - allowed
    if unknown:
        raise ValueError(
            f"{known.name} has no argument {', '.join(sorted(unknown))}; it takes {', '.join(sorted(allowed))}"
        )
    size = arguments.get(SIZE.get(known.kind, ""), 1)
    if isinstance(size, bool) or not isinstance(size, int):
        raise ValueError(
            f"{SIZE[known.kind]}={size!r} of {known.name} is not a whole number; write such as "
            f"{known.name}:{SIZE[known.kind]}=4"
        )
    return Step(known, arguments, rules)


def check_budget(found: tuple[Step, ...], keep: float | None) -> None:
    """Refuse a share to keep that is missing, decides nothing, or sizes a step whose layers others change too."""
    free = next((step for step in found if step.sized_by_budget), None)
    if free is None:
        if keep is not None:
            names = " and ".join(step.card.name for step in found)
            raise ValueError(f"keep={keep} has nothing to decide: every size in {names} is given; leave keep out")
        return
    if keep is None:
        raise ValueError(f"{free.card.name} needs to know how much to keep: keep=0.8, or a size of its own")
    _check.share("keep", keep)
    place = found.index(free)
    for number, other in enumerate(found):
        follows = number > place and other.kind == "quantize"  # what it makes of each size is known
        if other is not free and other.kind != "rescale" and not follows:
            raise ValueError(
                f"keep cannot size {free.card.name} beside {other.card.name}, which changes the same layers; give "
                f"{free.card.name} a size of its own ({SIZE[free.kind]}=…) and leave keep out"
            )
