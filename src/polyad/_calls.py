"""Calls of methods: their arguments, what is said of wrong ones, and arrays in the place of tensors."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OTHER_NAMES = {
    "r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout", "n_bits": "bits", "wbits": "bits",
    "w_bits": "bits", "nbits": "bits", "group_size": "group", "groupsize": "group", "q_group_size": "group",
    "ratio": "keep",
}  # fmt: skip
"""Names that other libraries have for arguments."""
ALWAYS = frozenset({"self", "generator", "callback"})
"""Arguments that are given by whoever runs a method, whatever its kind."""
REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Argument:
    """One argument: its name, its type as it is written, and its default (``REQUIRED`` where there is none)."""

    name: str
    type: str
    default: Any = REQUIRED

    def __str__(self) -> str:
        return self.name if self.default is REQUIRED else f"{self.name}={self.default}"


def parameters_of(function: Callable[..., Any]) -> list[Argument]:
    """The parameters of a function or a class that have a name."""
    return [
        Argument(p.name, p.annotation if isinstance(p.annotation, str) else str(p.annotation), p.default)
        for p in inspect.signature(function).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def call_refusal(name: str, function: Callable[..., Any], given: Sequence[Any], named: Iterable[str]) -> str:
    """The sentence that says what is wrong with a call that a function's signature does not take.

    >>> from polyad.decompose import cp_als
    >>> cp_als(None, rnak=3)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    TypeError: cp_als has no argument 'rnak'; did you mean rank? It takes x, rank=None, tol=None, ...
    """
    parameters = list(inspect.signature(function).parameters.values())
    own = len(parameters) > 0 and parameters[0].name == "self"
    parameters, values = parameters[own:], len(given) - own
    allowed = {one.name: one for one in parameters_of(function) if one.name not in ALWAYS}
    for key in named:
        if key not in {p.name for p in parameters}:
            return no_argument(name, key, allowed)
    placed = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if values > len(placed):
        places = ", ".join(placed) or "none"
        return f"{name} was given {values} values by place and takes {len(placed)} so: {places}; name the others"
    twice = next((key for key in placed[:values] if key in named), None)
    if twice is not None:
        return f"{name} was given {twice} twice: by its place and by its name"
    missing = [
        p.name
        for p in parameters
        if p.default is REQUIRED
        and p.name not in (*placed[:values], *named)
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    return f"{name} needs {' and '.join(missing)}; it takes {', '.join(map(str, allowed.values())) or 'none'}"


def no_argument(method: str, name: str, allowed: Mapping[str, Argument]) -> str:
    meant = OTHER_NAMES.get(name.lower())
    near = [meant] if meant in allowed else difflib.get_close_matches(name, allowed, n=1)
    hint = f"did you mean {near[0]}? It" if near else "it"
    return f"{method} has no argument {name!r}; {hint} takes {', '.join(map(str, allowed.values())) or 'none'}"


def refuse_in_words(function: Any, name: str | None = None) -> Any:
    """The function, or the class with its ``__init__``, whose calls with wrong arguments end in a sentence."""
    if inspect.isclass(function):
        if "__init__" in vars(function):
            function.__init__ = refuse_in_words(function.__init__, function.__name__)
        return function

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        try:
            return function(*given, **named)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # by what the function does, and not by the call
            raise TypeError(call_refusal(name or function.__name__, function, given, named)) from None

    return call


def with_arrays(function: Any) -> Any:
    """The function with NumPy arrays among its arguments turned into tensors, whole numbers in ``x`` into floats."""

    @functools.wraps(function)
    def taking_arrays(*given: Any, **named: Any) -> Any:
        if not any(_is_array(value) for value in (*given, *named.values())):
            return function(*given, **named)
        first = tuple(tensor_of(v, floats=place == 0) if _is_array(v) else v for place, v in enumerate(given))
        rest = {name: tensor_of(v, floats=name == "x") if _is_array(v) else v for name, v in named.items()}
        return function(*first, **rest)

    return taking_arrays


def _is_array(value: Any) -> bool:
    return type(value).__module__ == "numpy" and type(value).__name__ == "ndarray"


def tensor_of(array: Any, *, floats: bool = False) -> Any:
    """A tensor of a NumPy array's numbers, of any strides and bytes; with ``floats`` whole ones as float64."""
    import torch

    if floats and array.dtype.kind in "iu":
        array = array.astype("float64")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")).copy())
