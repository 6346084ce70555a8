"""The page of one method on a terminal: what it does, its arguments, its papers, its claims, how it is called."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from polyad.cli.output import out, table

if TYPE_CHECKING:
    from polyad import Card
    from polyad.claims import Line

COMMANDS: Mapping[str, str] = {
    **dict.fromkeys(("factor", "group", "quantize", "rescale"), "polyad compress MODEL --method {} --out FOLDER"),
    "adapter": "polyad adapt MODEL --adapter {} --out FOLDER",
    "codec": "polyad cache MODEL --methods 'plain;{}'",
}
"""The command that uses a method, by its kind."""


def describe(card: Card, lines: Mapping[str, Sequence[Line]]) -> None:
    """Print all that is known of a method."""
    from polyad._arguments import arguments
    from polyad._calls import REQUIRED

    out.print(f"{card.name} ({card.kind})\n\n{prose(card.function)}\n", soft_wrap=True)
    rows = [
        [one.name, one.type, "required" if one.default is REQUIRED else str(one.default)]
        for one in arguments(card).values()
    ]
    if rows:
        table("arguments", ["name", "type", "default"], rows)
    for paper in card.papers:
        out.print(f"{paper.authors} ({paper.year}). {paper.title}. {paper.source}", soft_wrap=True)
        for line in lines.get(paper.handle or "", ()):
            figure = f"{line.figure:.4g} {line.relation} {line.bound:.4g}"
            out.print(f"  claim {line.handle}, {line.state} ({figure}): {line.assertion}", soft_wrap=True)
    if card.instead:
        out.print(f"\n{card.instead}", soft_wrap=True)
    out.print(f"\n{usage(card)}", soft_wrap=True)


def prose(function: Any) -> str:
    """The docstring without its examples, a line for each paragraph."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    return "\n".join(" ".join(part.split()) for part in paragraphs if not part.lstrip().startswith(">>>"))


def usage(card: Card) -> str:
    """The command that uses a method with arguments that work, or the import in Python where there is none."""
    from polyad._arguments import arguments

    taken = arguments(card)
    given = {name: value for name, value in card.example.items() if name in taken and _is_plain(value)}
    if card.kind in COMMANDS:
        spelled = card.name + (":" + ",".join(f"{k}={_spelled(v)}" for k, v in given.items()) if given else "")
        return COMMANDS[card.kind].format(spelled)
    package = ".".join(card.module.split(".")[:2])
    return f"from {package} import {card.function.__name__}"


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str) or (
        isinstance(value, tuple) and all(isinstance(n, int) for n in value)
    )


def _spelled(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
