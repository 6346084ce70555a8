"""Methods as the command line spells them: ``name:argument=value,…``."""

from __future__ import annotations

from typing import Any


def spelled(text: str) -> tuple[str, dict[str, Any]]:
    """The name of a method and the arguments behind its colon.

    >>> spelled("kivi:bits=4,group=32")
    ('kivi', {'bits': 4, 'group': 32})
    """
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
