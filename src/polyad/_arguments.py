"""The arguments of every method: what a user may give, and the one reader of ``name:argument=value,…``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from polyad import _check
from polyad._calls import ALWAYS, Argument, no_argument, parameters_of
from polyad._card import Card, card

SHORT = {"rtn": "round_to_nearest"}
"""Names that the field uses for a method, beside its own."""
SUPPLIED: Mapping[str, frozenset[str]] = {
    "decompose": frozenset({"x"}), "complete": frozenset({"observations"}), "quantize": frozenset({"x", "stats"}),
    "factor": frozenset({"weight", "stats"}), "group": frozenset({"block", "weights", "stats"}),
    "rescale": frozenset({"model"}), "allocate": frozenset({"items", "budget", "scores"}),
    "adapter": frozenset({"shape", "bank"}), "codec": frozenset({"place"}),
}  # fmt: skip
"""Arguments that the host of a kind gives, and no user."""
OF_HOSTS: Mapping[str, tuple[Argument, ...]] = {
    "group": (Argument("rules", "str", "mlp-qk-vo"),),
    "adapter": (Argument("dropout", "float", 0.0),),
    "codec": (Argument("window", "int", None), Argument("sinks", "int", None), Argument("dtype", "dtype", None)),
}
"""Arguments that the host of a kind takes for every method of it."""


def arguments(method: Card) -> dict[str, Argument]:
    """The arguments that a user may give to a method, by name, those of its host last.

    >>> from polyad import card, compress
    >>> [str(argument) for argument in arguments(card("lord")).values()]
    ['rank', 'centre=False']
    """
    hidden = ALWAYS | SUPPLIED.get(method.kind, frozenset())
    named = (argument for argument in parameters_of(method.function) if argument.name not in hidden)
    return {argument.name: argument for argument in (*named, *OF_HOSTS.get(method.kind, ()))}


def check_arguments(method: Card, given: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse arguments that a method does not take, and words where it takes numbers. Returns them.

    >>> from polyad import card, compress
    >>> check_arguments(card("modegpt"), {"rule": "mlp"})
    Traceback (most recent call last):
    ValueError: modegpt has no argument 'rule'; did you mean rules? It takes keep, ridge=1.0, rules=mlp-qk-vo
    """
    for name, value in check_names(method, given).items():
        try:
            _check.number(method.function, name, value)
        except ValueError as error:
            raise ValueError(f"{method.name}: {error}") from None
    return dict(given)


def check_names(method: Card, given: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse arguments that a method does not take, naming those that it does. Returns them."""
    allowed = arguments(method)
    for name in given:
        if name not in allowed:
            raise ValueError(no_argument(method.name, name, allowed))
    return dict(given)


def check_keywords(made: type, given: Iterable[str]) -> None:
    """Refuse keywords with which a class of methods cannot be made, as ``check_names`` does.

    Here those that a host supplies are taken, and those of the host itself are not.

    >>> from polyad.adapters import IA3
    >>> IA3((6, 8), rank=2)
    Traceback (most recent call last):
    TypeError: IA3 has no argument 'rank'; it takes side=outputs
    """
    allowed = _keywords(made)
    for name in given:
        if allowed is not None and name not in allowed:
            shown = {
                key: one
                for key, one in allowed.items()
                if key not in ALWAYS | SUPPLIED["adapter"] | SUPPLIED["codec"]
            }
            raise TypeError(no_argument(made.__name__, name, shown))


@functools.cache
def _keywords(made: type) -> dict[str, Argument] | None:
    """The keywords of a class by name; None where it takes any."""
    function: Any = made.__init__
    if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values()):
        return None
    return {one.name: one for one in parameters_of(function)[1:]}


def read_method(text: str, kinds: Iterable[str]) -> tuple[Card, dict[str, Any]]:
    """The method of one of these kinds that a text names, and the arguments behind its colon, checked.

    >>> from polyad import quantize
    >>> method, given = read_method("rtn:bits=4,group=32", ["quantize"])
    >>> method.name, given
    ('round_to_nearest', {'bits': 4, 'group': 32})
    """
    name, values = split_method(text)
    method = card(SHORT.get(name, name), kinds=tuple(kinds))
    return method, check_arguments(method, values)


def method_from(text: str, kinds: Iterable[str]) -> functools.partial[Any]:
    """The function of the method that a text names, with the arguments behind its colon.

    >>> method_from("block_influence:temperature=0.2", ["allocate"]).keywords
    {'temperature': 0.2}
    """
    method, values = read_method(text, kinds)
    return functools.partial(method.function, **values)


def split_method(text: str) -> tuple[str, dict[str, Any]]:
    """The name in a text, and the arguments behind its colon, not checked.

    >>> split_method("kivi:bits=4,group=32")
    ('kivi', {'bits': 4, 'group': 32})
    """
    name, _, rest = text.partition(":")
    values: dict[str, Any] = {}
    for item in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"{item!r} in {text!r} is not an argument; write {name}:argument=value,…")
        values[key.strip()] = read_value(value.strip())
    return name.strip(), values


def read_value(text: str) -> Any:
    """A number, a truth value, None, a torch dtype, a tuple of numbers joined by x, or the text itself.

    >>> read_value("4"), read_value("0.5"), read_value("true"), read_value("64x1"), read_value("mlp")
    (4, 0.5, True, (64, 1), 'mlp')
    """
    import torch

    lowered = text.lower()
    if lowered in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[lowered]
    if isinstance(getattr(torch, lowered, None), torch.dtype):
        return getattr(torch, lowered)
    for read in (int, float, lambda value: tuple(int(n) for n in value.split("x"))):
        try:
            return read(text)
        except ValueError:
            continue
    return text
