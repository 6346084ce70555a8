"""The parts of a format: walked, changed one by one, and as a pytree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree

# Names that torch.nn.Module uses itself; a field so called could not be registered on one.
_TAKEN = frozenset(name for name in (*dir(torch.nn.Module), *vars(torch.nn.Module())) if not name.startswith("__"))

F = TypeVar("F")


def register(kind: type) -> None:
    """Make a kind of format a pytree; one whose fields have names that torch.nn.Module uses itself is refused."""
    taken = _TAKEN.intersection(kind.__annotations__)
    if taken:
        raise TypeError(
            f"{kind.__name__} has fields called {sorted(taken)}, names that torch.nn.Module uses itself; rename them"
        )
    _pytree.register_pytree_node(
        kind,
        flatten,
        lambda leaves, context: unflatten(kind, leaves, context),
        serialized_type_name=f"polyad.formats.{kind.__name__}",
        flatten_with_keys_fn=flatten_with_keys,
    )


def _is_part(value: Any) -> bool:
    return isinstance(value, Tensor) or hasattr(value, "to_dense")


def _has_parts(value: Any) -> bool:
    return _is_part(value) or (isinstance(value, tuple) and any(map(_is_part, value)))


def parts(format: Any) -> Iterator[tuple[str, Any]]:
    """The tensors and formats in a format's fields, by dotted name (``terms.0``)."""
    for name in format.field_names():
        value = getattr(format, name)
        if _is_part(value):
            yield name, value
        elif isinstance(value, tuple):
            for i, inner in enumerate(value):
                if _is_part(inner):
                    yield f"{name}.{i}", inner


def number_parts(format: Any) -> Iterator[Any]:
    """The parts that hold the numbers represented: formats, and floating-point tensors that are not ``exact``."""
    for name, value in parts(format):
        if not isinstance(value, Tensor) or (
            (value.is_floating_point() or value.is_complex()) and name.split(".")[0] not in format.exact
        ):
            yield value


def named_tensors(format: Any) -> dict[str, Tensor]:
    """Every tensor of a format and of the formats in it, by dotted name."""
    named: dict[str, Tensor] = {}
    for name, value in parts(format):
        if isinstance(value, Tensor):
            named[name] = value
        else:
            named.update({f"{name}.{inner}": tensor for inner, tensor in value.tensors().items()})
    return named


def map_tensors(
    format: F, change: Callable[[str, Tensor, bool], Tensor], dtype: torch.dtype | None = None, prefix: str = ""
) -> F:
    """The format with ``change(dotted name, tensor, whether its field is exact)`` for every tensor.

    Fields that hold a dtype get ``dtype`` where one is given.
    """

    def visit(name: str, value: Any, exact: bool) -> Any:
        if isinstance(value, Tensor):
            return change(prefix + name, value, exact)
        if _is_part(value):
            return map_tensors(value, change, dtype, f"{prefix}{name}.")
        if isinstance(value, tuple):
            return tuple(visit(f"{name}.{i}", inner, exact) for i, inner in enumerate(value))
        return dtype if dtype is not None and isinstance(value, torch.dtype) else value

    kind: Any = format
    return type(kind)(**{f: visit(f, getattr(kind, f), f in kind.exact) for f in kind.field_names()})


def stored_bytes(tensors: Iterable[Tensor]) -> int:
    """The bytes of these tensors, each compacted, and one that comes several times counted once."""
    sizes = {_storage_key(t): t.numel() * t.element_size() for t in tensors}
    return sum(sizes.values())


def _storage_key(t: Tensor) -> tuple[Any, ...]:
    """The same key for two tensors if they are one view of one storage; on the meta device if they are one object."""
    if t.is_meta:
        return (id(t),)
    return (t.untyped_storage()._cdata, t.storage_offset(), tuple(t.shape), tuple(t.stride()))


def flatten(format: Any) -> tuple[list[Any], tuple[Any, ...]]:
    """A format's fields that hold tensors, and their names with all plain fields."""
    values = [(name, getattr(format, name)) for name in format.field_names()]
    plain = tuple((name, value) for name, value in values if not _has_parts(value))
    names = tuple(name for name, value in values if _has_parts(value))
    return [getattr(format, name) for name in names], (names, plain)


def flatten_with_keys(format: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
    """``flatten`` with the attribute under which each part is found."""
    values, context = flatten(format)
    return list(zip(map(_pytree.GetAttrKey, context[0]), values, strict=True)), context


def unflatten(kind: type, leaves: Iterable[Any], context: tuple[Any, ...]) -> Any:
    """The inverse of ``flatten``. Skips the checks: transforms put objects that are not tensors into leaves."""
    names, plain = context
    format = object.__new__(kind)
    for name, value in (*zip(names, leaves, strict=True), *plain):
        object.__setattr__(format, name, value)
    return format


def merge_growth(field: str, growths: Iterable[dict[str, int] | None]) -> dict[str, int] | None:
    """The ``growth`` of a tuple of formats, as one map with dotted names; None where one of them cannot grow."""
    merged: dict[str, int] = {}
    for i, growth in enumerate(growths):
        if growth is None:
            return None
        merged.update({f"{field}.{i}.{name}": value for name, value in growth.items()})
    return merged


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def dtype_and_device(target: tuple[Any, ...], dtype: Any, device: Any) -> tuple[torch.dtype | None, Any]:
    """Read what ``Tensor.to`` takes by position, a dtype, a device or a tensor, beside what was given by name.

    >>> dtype_and_device(("cpu", torch.float16), None, None)
    (torch.float16, 'cpu')
    """
    for one in target:
        if isinstance(one, Tensor):
            dtype, device = one.dtype, one.device
        elif isinstance(one, torch.dtype):
            dtype = one
        elif isinstance(one, str | int | torch.device) and not isinstance(one, bool):
            device = one
        elif one is not None:
            raise TypeError(f"a format goes to a dtype, a device or another tensor's, not to {one!r}")
    return dtype, device


def move_tensors(one: Any, target: tuple[Any, ...], dtype: torch.dtype | None, device: Any) -> Any:
    """A format on another device or in another dtype, its integers and exact tensors in the dtype that they have."""
    dtype, device = dtype_and_device(target, dtype, device)

    def move(_name: str, tensor: Tensor, exact: bool) -> Tensor:
        keeps = exact or not tensor.is_floating_point()
        return tensor.to(device=device, dtype=None if keeps else dtype)

    return map_tensors(one, move, dtype)
