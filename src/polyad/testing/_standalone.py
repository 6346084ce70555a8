"""The means that the contracts of methods that stand alone share: how arguments are drawn and results measured.

Of such a method (``solve``, ``sketch``, ``stream``, ``operation``) the card's ``example`` holds ``arguments``, a
function of a generator that draws what to call it with, floats in float64; and ``off``, a function of the result and
of the arguments by name: how far the result is from what the docstring promises, in units of what is allowed. What is
called is the method itself, or ``call`` for a class.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polyad._card import Card
from polyad.formats import Format
from polyad.testing._contract import seeded
from polyad.testing._refusals import assert_refused, result_or_refusal

Change = Callable[[Tensor], Tensor]
DTYPES = (torch.float64, torch.float32)
LAYOUTS: Mapping[str, Change] = {
    "strided": lambda t: torch.stack((t, t), -1)[..., 0], "requires grad": lambda t: t.clone().requires_grad_(),
}  # fmt: skip
"""Changes after which a tensor holds the same numbers."""
WHOLE = frozenset({"rank", "rows", "budget", "steps", "keep", "levels", "bits", "tables", "bins", "block"})
"""Whole numbers that count something: none of them may be 0 or less."""


def draw_arguments(card: Card, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """The arguments of an example, floats in a dtype."""
    arguments = card.example["arguments"](seeded(seed))
    return {name: change_tensors(value, lambda t: t.to(dtype)) for name, value in arguments.items()}


def result(card: Card, arguments: Mapping[str, Any], seed: int = 0) -> Any:
    """The result of the method for these arguments, with a generator of this seed where it takes one."""
    call = card.example.get("call", card.function)
    takes = inspect.signature(call).parameters
    random = {"generator": seeded(seed)} if "generator" in takes and "generator" not in arguments else {}
    return call(**arguments, **random)


def off(card: Card, answer: Any, arguments: Mapping[str, Any]) -> float:
    """The distance of a result from what was promised; what is no number is infinitely far."""
    distance = float(card.example["off"](answer, **arguments))
    return math.inf if math.isnan(distance) else distance


def change_tensors(value: Any, change: Change) -> Any:
    """A value with every floating-point tensor in it changed, in tuples, mappings, formats and dataclasses too."""
    if isinstance(value, Tensor):
        return change(value) if value.is_floating_point() or value.is_complex() else value
    if isinstance(value, Format):
        return value.replace({name: change_tensors(t, change) for name, t in value.tensors().items()})
    if isinstance(value, Mapping):
        return {key: change_tensors(item, change) for key, item in value.items()}
    if isinstance(value, tuple | list):
        parts = [change_tensors(item, change) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: change_tensors(getattr(value, f.name), change) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)
    return value


def tensors(value: Any, name: str = "result") -> dict[str, Tensor]:
    """Every tensor and number in a value, by where it stands."""
    if isinstance(value, Tensor):
        return {name: value.detach()}
    if isinstance(value, bool | int | float):
        return {name: torch.tensor(value, dtype=torch.float64)}
    if isinstance(value, Format | nn.Module):
        parts = value.tensors() if isinstance(value, Format) else value.state_dict()
        return {f"{name}.{key}": t.detach() for key, t in parts.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        value = dict(enumerate(value))
    parts = value.items() if isinstance(value, Mapping) else ()
    return {key: t for part, item in parts for key, t in tensors(item, f"{name}.{part}").items()}


def multiply(value: Any, factor: float) -> Any:
    """An argument times a number: the values of a function, a plain number, and tensors wherever they stand."""
    if isinstance(value, int | float):
        return value * factor
    if callable(value) and not isinstance(value, nn.Module):
        return lambda *args, **kwargs: multiply(value(*args, **kwargs), factor)
    if isinstance(value, Format):
        return value * factor
    return change_tensors(value, lambda t: t * factor)


def disturb(answer: Any, share: float = 0.1) -> Any:
    """A result that is off by a share of its size; whole numbers, where there is nothing else, by one."""
    if isinstance(answer, int | float):
        return answer + 1 if isinstance(answer, int) else answer * (1 + share)
    if isinstance(answer, tuple) and all(isinstance(item, int) for item in answer):
        return tuple([item + 1 for item in answer])

    def add_noise(t: Tensor) -> Tensor:
        noise = torch.randn(t.shape, generator=seeded(9), dtype=torch.float64).to(t)
        return t + share * t.abs().max() * noise if t.numel() else t

    return change_tensors(answer, add_noise)


def assert_identical(card: Card, one: Any, other: Any, what: str) -> None:
    """Two results are the same to the last digit."""
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys(), f"{card.name} {what} gives results of two structures"
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), f"{card.name} {what} gives two different numbers at {name}"


def spoil(value: Any, number: float) -> Any:
    """An argument with one entry, or one value of a function, replaced by NaN or infinity; None where it has none."""
    if isinstance(value, float):
        return number if math.isnan(number) else None
    if callable(value) and not isinstance(value, nn.Module):
        return lambda *args, **kwargs: spoil(value(*args, **kwargs), number)
    left = [True]

    def put_in(t: Tensor) -> Tensor:
        if not left or not t.numel():
            return t
        left.clear()
        t = t.detach().clone(memory_format=torch.contiguous_format)
        t.view(-1)[-1] = number
        return t

    bad = change_tensors(value, put_in)
    return None if left else bad


def refuse_numbers(card: Card, call: Callable[[dict[str, Any]], Any], names: Sequence[str] | None = None) -> None:
    """NaN anywhere, infinity in a tensor, and counts of none are refused with a sentence that names the argument."""
    for name, value in draw_arguments(card).items():
        if names is not None and name not in names:
            continue
        counts = (0, -1) if name in WHOLE and isinstance(value, int) else ()
        for number in (math.nan, math.inf, *counts):
            bad = number if number in counts else spoil(value, number)
            if bad is not None:
                arguments = {**draw_arguments(card), name: bad}
                assert_refused(card, f"{number} in {name}", lambda arguments=arguments: (call(arguments),), name)


def refuse_shapes(card: Card, call: Callable[[dict[str, Any]], Any]) -> None:
    """Tensors of whole numbers, of no dimension and of no rows are refused; other wrong shapes never fail raw."""
    for name, value in draw_arguments(card).items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        for what, bad in (("whole numbers", value.long()), ("no dimension", value.sum()), ("no rows", value[:0])):
            arguments = {**draw_arguments(card), name: bad}
            assert_refused(card, f"{what} as {name}", lambda arguments=arguments: (call(arguments),), name)
        for what, bad in (("a row less", value[1:]), ("a dimension more", value[None]), ("half", value.bfloat16())):
            arguments = {**draw_arguments(card), name: bad}
            result_or_refusal(card, f"{what} in {name}", lambda arguments=arguments: call(arguments))
