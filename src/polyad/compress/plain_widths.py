"""Widths that an ordinary configuration can state: the same for every layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polyad.allocate import Curve
from polyad.allocate.curve import even_places
from polyad.compress.recipe import Step


def alike(items: Mapping[str, Curve], budget: float) -> dict[str, int]:
    """Give items of the same sizes one size, the largest with which all fit; what that leaves over is not spent.

    >>> import numpy as np
    >>> curve = Curve(np.arange(1, 5), np.arange(1.0, 5.0), np.array([3.0, 2.0, 1.0, 0.0]))
    >>> alike({"a": curve, "b": curve}, 5.0)
    {'a': 2, 'b': 2}
    """
    return {name: int(items[name].sizes[place]) for name, place in even_places(items, budget).items()}


def refuse_unplain(recipe: Sequence[Step], allocate: str | None) -> None:
    """Refuse recipes of which plain transformers could not load the result."""
    if allocate is not None:
        raise ValueError(
            f"--plain gives every layer one width, and --allocate {allocate} others; leave one of them out"
        )
    for step in recipe:
        if step.kind == "group" and step.rules != ("mlp",):
            raise ValueError(
                f"{step.card.name} would cut attention heads too, which no configuration states; with --plain write "
                f"--method {step.card.name}:rules=mlp"
            )
        if step.kind not in ("group", "rescale"):
            raise ValueError(
                f"{step.card.name} makes layers that plain transformers does not know; with --plain choose a method "
                "that makes layers narrower, such as modegpt:rules=mlp, or leave --plain out"
            )
