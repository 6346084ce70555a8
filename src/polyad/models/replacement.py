"""Replacements of trained weights by other tensors, formats and modules."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from polyad.formats import Dense, Format
from polyad.layers import Conv, Embedding, Linear
from polyad.models.attention import ReducedAttention
from polyad.models.blocks import Block
from polyad.models.layer_matrices import is_transposed
from polyad.models.surgery import Undo, replace


@dataclass(frozen=True, eq=False)
class Replacement:
    """New values for parameters, by dotted path, and what the forward pass must know of them.

    A tensor of another shape makes an ordinary layer of that shape, a format a layer that holds it. ``forward``
    maps the path of a module to arguments of the module that takes its place: ``pairs`` and ``value_width`` of
    an attention module.
    """

    weights: Mapping[str, Tensor | Format]
    forward: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def merge_replacements(replacements: Iterable[Replacement]) -> Replacement:
    """Merge several replacements into one; refused where two replace the same parameter."""
    weights: dict[str, Tensor | Format] = {}
    forward: dict[str, dict[str, Any]] = {}
    for replacement in replacements:
        twice = weights.keys() & replacement.weights.keys()
        if twice:
            raise ValueError(f"two methods replace {', '.join(sorted(twice)[:3])}; let one of them leave it out")
        weights.update(replacement.weights)
        for path, arguments in replacement.forward.items():
            forward.setdefault(path, {}).update(arguments)
    return Replacement(weights, forward)


def modules(model: nn.Module, replacement: Replacement, blocks: Iterable[Block] = ()) -> dict[str, nn.Module]:
    """The modules that put a replacement into effect, by path, outer ones first."""
    by_module: dict[str, dict[str, Tensor | Format]] = {}
    for path, value in replacement.weights.items():
        owner, _, name = path.rpartition(".")
        by_module.setdefault(owner, {})[name] = value
    inner = {path: layer(model.get_submodule(path), values) for path, values in by_module.items()}
    homes = {block.home: block for block in blocks}
    outer: dict[str, nn.Module] = {}
    for path, arguments in replacement.forward.items():
        block = homes[path]
        sizes: dict[str, Any] = {"heads": block.heads, "key_heads": block.key_heads, "head_width": block.width}
        sizes |= {"value_width": block.width, **arguments}
        outer[path] = ReducedAttention(model.get_submodule(path), **sizes)
    return outer | inner


def put_in_place(model: nn.Module, replacement: Replacement, blocks: Iterable[Block] = ()) -> Undo:
    """Put a replacement into effect; ``blocks`` are those whose forward pass it changes. Returns what undoes it."""
    new = modules(model, replacement, blocks)
    return replace(model, new)


def layer(before: nn.Module, values: Mapping[str, Tensor | Format]) -> nn.Module:
    """The layer that does what ``before`` did, with these new values of weight and bias."""
    old: Any = getattr(before, "weight", None)
    if is_transposed(before):  # a matrix (out, in) takes the place of one (in, out)
        before = linear(old.detach().mT.contiguous(), getattr(before, "bias", None))
        old = before.weight
    if isinstance(old, Tensor) and all(isinstance(v, Tensor) for v in values.values()):
        shapes = {name: getattr(getattr(before, name, None), "shape", None) for name in values}  # a bias may be new
        if all(shapes[name] == v.shape for name, v in values.items()):
            return with_values(before, {name: v for name, v in values.items() if isinstance(v, Tensor)})
    weight = values.get("weight", old)
    bias = values.get("bias", getattr(before, "bias", None))
    if isinstance(bias, Format) or weight is None:
        raise TypeError(f"a bias is a tensor and a weight is there; got {type(bias).__name__}")
    bias = None if bias is None else bias.detach()
    if isinstance(weight, Tensor) and isinstance(before, nn.Linear):
        return linear(weight.detach(), bias)
    format = Dense(weight) if isinstance(weight, Tensor) else weight
    if isinstance(before, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return Conv.like(before, format, bias)
    return Embedding(format) if isinstance(before, nn.Embedding) else Linear(format, bias)


def with_values(before: nn.Module, values: Mapping[str, Tensor]) -> nn.Module:
    """A shallow copy of a module in which some parameters have other values."""
    clone = copy.copy(before)
    clone._parameters = dict(before._parameters)
    for name, value in values.items():
        clone._parameters[name] = nn.Parameter(value.detach())
    return clone


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """torch's own linear layer with this weight (out, in) and bias (out,)."""
    out, inner = weight.shape
    result = nn.Linear(inner, out, bias=bias is not None, device="meta", dtype=weight.dtype)
    result.weight = nn.Parameter(weight)
    if bias is not None:
        result.bias = nn.Parameter(bias)
    return result
