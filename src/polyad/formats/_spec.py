"""Formats as JSON without their numbers, and empty formats of such JSON."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor

from polyad._stated import MOST, check_stated


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


class TensorStated(TypedDict):
    """A tensor as JSON describes it."""

    shape: list[int]
    dtype: str


class FormatStated(TypedDict):
    """A format as JSON describes it."""

    kind: str
    fields: NotRequired[dict[str, Any]]


DESCRIPTION = "the description of a format"


def decode(value: Any, device: torch.device | str, kinds: Mapping[str, type]) -> Any:
    """The inverse of ``encode``, with empty tensors on ``device``."""
    if isinstance(value, list):
        return tuple(decode(inner, device, kinds) for inner in value)
    if not isinstance(value, dict):
        return value
    if "kind" in value:
        return build(value, kinds, device)
    if "torch" in value:
        return dtype_called(value["torch"])
    return empty_tensor(value, device)


def dtype_called(name: Any) -> torch.dtype:
    """The dtype of torch's of this name; another name is refused."""
    dtype = getattr(torch, name, None) if isinstance(name, str) else None
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{DESCRIPTION} names {name!r:.60}, which is no dtype of torch; copy the file again")
    return dtype


def empty_tensor(value: Any, device: torch.device | str) -> Tensor:
    """The uninitialised tensor of a shape and a dtype in JSON."""
    shape = check_stated(value, TensorStated, DESCRIPTION)["shape"]
    if min(shape, default=0) < 0 or math.prod(shape) > MOST:
        raise ValueError(f"{DESCRIPTION} states the shape {shape}, which no tensor has; copy the file again")
    return torch.empty(shape, dtype=dtype_called(value["dtype"]), device=device)


def build(spec: Any, kinds: Mapping[str, type], device: torch.device | str) -> Any:
    """The uninitialised format of a spec; kinds and fields that this version does not have are refused."""
    check_stated(spec, FormatStated, DESCRIPTION)
    kind, fields = spec["kind"], spec.get("fields", {})
    if kind not in kinds:
        raise ValueError(f"kind={kind!r} is no format of this version; choose from {', '.join(sorted(kinds))}")
    known = {field.name: field for field in dataclasses.fields(kinds[kind])}
    unknown = fields.keys() - known.keys()
    if unknown:
        raise ValueError(
            f"a {kind} has no {' or '.join(sorted(unknown))} here; a newer polyad wrote it: upgrade this one with "
            "pip install -U polyad"
        )
    missing = sorted(n for n, f in known.items() if f.default is dataclasses.MISSING and n not in fields)
    if missing:
        raise ValueError(f"{DESCRIPTION} lacks {' and '.join(missing)} of a {kind}; copy the file again")
    try:
        values = {name: decode(value, device, kinds) for name, value in fields.items()}
    except RecursionError:
        raise ValueError(f"{DESCRIPTION} has formats in formats without end; copy the file again") from None
    hints = typing.get_type_hints(kinds[kind])
    for name, value in values.items():
        check_stated(value, hints[name], f"{DESCRIPTION}, in {name} of a {kind},", "copy the file again")
    if any(part < 0 for part in values.get("size", ())):
        raise ValueError(f"{DESCRIPTION} states the size {values['size']} of a {kind}; copy the file again")
    try:
        return kinds[kind](**values)
    except (TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"no {kind} has the parts that {DESCRIPTION} states ({error}); copy the file again"
        ) from error
