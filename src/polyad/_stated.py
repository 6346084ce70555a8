"""JSON that files state, held to a schema: type hints of plain Python, TypedDicts among them."""

from __future__ import annotations

import contextlib
import dis
import functools
import json
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union

RAISE = dis.opmap["RAISE_VARARGS"]
MOST = 2**40
"""Counts above this are damage: no file holds as many numbers."""
WORDS: Mapping[Any, str] = {
    int: f"a whole number of at most {MOST}", float: "a finite number", str: "a text", bool: "true or false",
    dict: "an object", list: "a list", tuple: "a list", type(None): "null",
}  # fmt: skip


@contextlib.contextmanager
def in_words(what: str, remedy: str = "copy it again") -> Iterator[None]:
    """Turn whatever a damaged file makes Python or another library raise into a ValueError: ``what (…); remedy``.

    Sentences of polyad's own, which are ValueErrors and OSErrors raised by it, pass as they are.
    """
    try:
        yield
    except Exception as error:
        last = error.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        if last is not None and isinstance(error, ValueError | OSError | ImportError) and _is_raised_here(last):
            raise
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise ValueError(f"{what} ({type(error).__name__}: {said}); {remedy}") from error


def _is_raised_here(last: types.TracebackType) -> bool:
    """True where the last step of a traceback is a ``raise`` of polyad's, and no call that failed."""
    code = last.tb_frame.f_code.co_code[last.tb_lasti]
    return str(last.tb_frame.f_globals.get("__name__")).split(".")[0] == "polyad" and code == RAISE


def read_stated(path: Path, kind: Any, remedy: str = "copy it again") -> Any:
    """The JSON in a file, of this kind; ValueError names the file and the place in it, and ends in ``remedy``."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(f"{path} cannot be read ({why}); {remedy}") from None
    return parse_stated(text, kind, path, remedy)


def parse_stated(text: str | None, kind: Any, place: object, remedy: str = "copy it again") -> Any:
    """The JSON in a text, of this kind; ``place`` says where the text stands.

    >>> parse_stated('{"rank": 2}', dict[str, int], "a.json")
    {'rank': 2}
    >>> parse_stated('{"rank": "two"}', dict[str, int], "a.json")
    Traceback (most recent call last):
    ValueError: a.json states "two" for rank, where a whole number of at most 1099511627776 is needed; copy it again
    """
    if text is None:
        raise ValueError(f"{place} does not state what it holds; {remedy}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # the latter of lists in lists
        raise ValueError(f"{place} is no JSON that can be read ({error}); {remedy}") from None
    return check_stated(value, kind, place, remedy)


def check_stated(value: Any, kind: Any, place: object, remedy: str = "copy it again") -> Any:
    """Refuse a value that is not of this kind. Returns it.

    A kind is int, float (finite, whole numbers too), str, bool, None, Any, another class, list[…], tuple[…],
    dict[str, …], Literal[…], a union, or a TypedDict, of which further keys are let through.
    """
    at = _misfit("", value, kind)
    if at is None:
        return value
    name, wrong, wanted = at
    where = f" for {name}" if name else ""
    raise ValueError(f"{place} states {_shown(wrong)}{where}, where {wanted} is needed; {remedy}")


_Misfit = tuple[str, Any, str]
"""The place in a value, what stands there, and what would be right, in words."""


def _misfit(name: str, value: Any, kind: Any) -> _Misfit | None:
    """The first place at which a value is not of a kind; None where it is."""
    if kind is Any or isinstance(kind, typing.ForwardRef):  # the latter of trees in trees
        return None
    if typing.is_typeddict(kind):
        return _object(name, value, kind)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        misfits = [_misfit(name, value, one) for one in inner]
        if None in misfits:
            return None
        deeper = next((m for m in misfits if m is not None and m[0] != name), None)
        return deeper or (name, value, " or ".join(m[2] for m in misfits if m is not None))
    if origin is typing.NotRequired:
        return _misfit(name, value, inner[0])
    if origin is Literal:
        fits = any(type(value) is type(one) and value == one for one in inner)
        return None if fits else (name, value, "one of " + ", ".join(map(str, inner)))
    if origin in (list, tuple):
        return _sequence(name, value, origin, inner)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            return name, value, WORDS[dict]
        return _first(_misfit(_below(name, key), one, inner[1]) for key, one in value.items())
    return None if _is_plain(value, kind) else (name, value, WORDS.get(kind, f"a {getattr(kind, '__name__', kind)}"))


def _is_plain(value: Any, kind: Any) -> bool:
    if kind is None:
        return value is None
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(_bounded(value))
    if kind is int:
        return isinstance(value, int) and abs(value) <= MOST
    return isinstance(value, kind)


def _bounded(value: float) -> float:
    """The number, or infinity where it is a whole number that torch does not take."""
    return value if isinstance(value, float) or abs(value) < 2**63 else math.inf


def _object(name: str, value: Any, kind: Any) -> _Misfit | None:
    if not isinstance(value, dict):
        return name, value, WORDS[dict]
    hints = _hints(kind)
    optional = {key for key, hint in hints.items() if typing.get_origin(hint) is typing.NotRequired}
    missing = sorted(hints.keys() - optional - value.keys())
    if missing:
        return name, value, f"an object with {', '.join(missing)}"
    return _first(_misfit(_below(name, key), value[key], hint) for key, hint in hints.items() if key in value)


def _sequence(name: str, value: Any, origin: Any, inner: tuple[Any, ...]) -> _Misfit | None:
    if not isinstance(value, list | tuple):
        return name, value, WORDS[list]
    if origin is list or inner[1:] == (Ellipsis,):
        return _first(_misfit(f"{name}[{i}]", one, inner[0]) for i, one in enumerate(value))
    if len(value) != len(inner):
        return name, value, f"a list of {len(inner)}"
    return _first(_misfit(f"{name}[{i}]", *pair) for i, pair in enumerate(zip(value, inner, strict=True)))


@functools.cache
def _hints(kind: Any) -> Mapping[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _first(misfits: Iterable[_Misfit | None]) -> _Misfit | None:
    return next((misfit for misfit in misfits if misfit is not None), None)


def _below(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _shown(value: Any) -> str:
    """A value as JSON, cut to a few words."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=lambda other: type(other).__name__)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:50]}…"
