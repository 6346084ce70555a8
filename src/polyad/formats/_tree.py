"""How a format is taken apart and put together: as a pytree, and as JSON without its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree


def _part(value: Any) -> bool:
    return isinstance(value, Tensor) or hasattr(value, "to_dense")


def _holds(value: Any) -> bool:
    return _part(value) or (isinstance(value, tuple) and any(map(_part, value)))


def flatten(format: Any) -> tuple[list[Any], tuple[Any, ...]]:
    """A format's fields that hold tensors, and their names with all plain fields."""
    values = [(name, getattr(format, name)) for name in format._fields()]
    plain = tuple((name, value) for name, value in values if not _holds(value))
    held = tuple(name for name, value in values if _holds(value))
    return [getattr(format, name) for name in held], (held, plain)


def flatten_with_keys(format: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
    """``flatten`` with the attribute under which each part is found."""
    values, context = flatten(format)
    return list(zip(map(_pytree.GetAttrKey, context[0]), values, strict=True)), context


def unflatten(kind: type, leaves: Iterable[Any], context: tuple[Any, ...]) -> Any:
    """The inverse of ``flatten``. Skips the checks: transforms put objects that are not tensors into leaves."""
    held, plain = context
    format = object.__new__(kind)
    for name, value in (*zip(held, leaves, strict=True), *plain):
        object.__setattr__(format, name, value)
    return format


def encode(value: Any) -> Any:
    """A field as JSON: shapes and dtypes for tensors, names for dtypes, lists for tuples."""
    if isinstance(value, Tensor):
        return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if hasattr(value, "spec"):
        return value.spec()
    if isinstance(value, torch.dtype):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, tuple):
        return [encode(inner) for inner in value]
    return value


def decode(value: Any, device: torch.device | str, make: Callable[[dict[str, Any], Any], Any]) -> Any:
    """The inverse of ``encode``, with empty tensors on ``device``; ``make`` turns an inner spec into a format."""
    if isinstance(value, list):
        return tuple(decode(inner, device, make) for inner in value)
    if not isinstance(value, dict):
        return value
    if "kind" in value:
        return make(value, device)
    if "torch" in value:
        return getattr(torch, value["torch"])
    return torch.empty(value["shape"], dtype=getattr(torch, value["dtype"]), device=device)


def nested(field: str, parts: Iterable[dict[str, int] | None]) -> dict[str, int] | None:
    """The maps of a tuple's formats as one with dotted names; None where one of them is."""
    found: dict[str, int] = {}
    for i, part in enumerate(parts):
        if part is None:
            return None
        found.update({f"{field}.{i}.{name}": value for name, value in part.items()})
    return found


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
