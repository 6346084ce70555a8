"""The contract of an operation: it acts on models, adapters or tensors that exist, and leaves alone what it may.

The card's ``example`` says how it is tried. ``arguments``, a function of a generator, makes what the operation gets
anew at every call: models, hosts of adapters, functions, tensors. ``off``, a function of the result and of the
arguments by name, says how far the result is from what the docstring promises, in units of what is allowed, and
``changes`` names the arguments whose numbers the operation may change. A class has ``call``, a function of the
arguments that gives a result.

>>> import polyad.adapters
>>> from polyad._card import card
>>> for check in CHECKS:
...     check(card("ensemble"))
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from polyad._card import Card
from polyad.adapters import Adapters
from polyad.testing._alone import drawn, identical, off, perturbed, refuse_numbers, result, spoilt, tensors
from polyad.testing._refusals import assert_refused
from polyad.testing._saved import assert_same


def numbers(value: Any) -> dict[str, Any]:
    """Every tensor of an argument, copied, by name; those of a model with buffers that are never saved."""
    if isinstance(value, Adapters):
        return numbers(value.model)
    if isinstance(value, nn.Module):
        held = {**dict(value.named_parameters()), **dict(value.named_buffers())}
        return {name: tensor.detach().clone() for name, tensor in held.items()}
    if isinstance(value, Mapping):
        return {str(key): numbers(item) for key, item in value.items()}
    return {name: tensor.clone() for name, tensor in tensors(value).items()}


def flags(value: Any) -> dict[str, Any]:
    """What an argument is beside its numbers: what is trained, modes, classes, hooks, which adapters act."""
    if isinstance(value, Adapters):
        return {**flags(value.model), "active": {name: float(weight) for name, weight in value.active.items()}}
    if isinstance(value, nn.Module):
        found: dict[str, Any] = {f"{name} is trained": p.requires_grad for name, p in value.named_parameters()}
        for path, module in value.named_modules():
            hooks = len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
            found[f"module {path!r}"] = {"class": type(module).__name__, "training": module.training, "hooks": hooks}
        return found
    if isinstance(value, Mapping):
        return {str(key): flags(item) for key, item in value.items()}
    return {"is trained": value.requires_grad} if isinstance(value, Tensor) else {}


def resulting(card: Card) -> None:
    """Several drawn inputs give what is stated, in numbers that are finite, of the class that is annotated."""
    annotated = None if "call" in card.example else get_type_hints(card.function).get("return")
    kind = getattr(annotated, "__origin__", annotated)
    for seed in range(3):
        arguments = drawn(card, seed)
        found = result(card, arguments)
        assert not isinstance(kind, type) or isinstance(found, kind), f"{card.name} gives a {type(found).__name__}"
        for name, tensor in tensors(found).items():
            assert bool(torch.isfinite(tensor).all()), f"{card.name} gives numbers that are not finite at {name}"
        distance = off(card, found, arguments)
        assert distance <= 1, f"{card.name}, input {seed}, is {distance:.3g} times as far off as stated"


def sensitive(card: Card) -> None:
    """What the example calls a result is none any more once it is off by a tenth."""
    arguments = drawn(card)
    distance = off(card, _disturbed(result(card, arguments)), arguments)
    assert distance > 1, f"the example of {card.name} takes a result that is off by a tenth for the right one"


def _disturbed(found: Any) -> Any:
    if isinstance(found, nn.Module):
        changed = copy.deepcopy(found)
        changed.load_state_dict(perturbed(dict(found.state_dict())))
        return changed
    if isinstance(found, Mapping):
        return {key: _disturbed(item) for key, item in found.items()}
    if isinstance(found, list) and all(isinstance(item, float) for item in found):
        return perturbed(torch.tensor(found, dtype=torch.float64)).tolist()
    return perturbed(found)


def untouched(card: Card) -> None:
    """Arguments keep every number, but those the example names, and every flag; the result is no view of them."""
    arguments = drawn(card)
    before = {name: (numbers(value), flags(value)) for name, value in arguments.items()}
    found = result(card, arguments)
    _assert_untouched(card, arguments, before, "")
    after = {name: (numbers(value), flags(value)) for name, value in arguments.items()}
    with torch.no_grad():
        for tensor in tensors(found).values():
            if tensor.is_floating_point():
                tensor.add_(1)
    _assert_untouched(card, arguments, after, " once its result is changed")


def _assert_untouched(card: Card, arguments: Mapping[str, Any], before: Mapping[str, Any], when: str) -> None:
    for name, value in arguments.items():
        what = f"{card.name}{when} changes {name}, which now"
        assert_same(flags(value), before[name][1], what)
        if name not in card.example.get("changes", ()):
            assert_same(numbers(value), before[name][0], what)


def repeatable(card: Card) -> None:
    """The same inputs, made anew, give the same result and the same changes; torch's own generator is left alone."""
    results, changed = [], []
    for _ in range(2):
        arguments, before = drawn(card), torch.get_rng_state()
        results.append(result(card, arguments))
        assert torch.equal(torch.get_rng_state(), before), f"{card.name} draws from torch's own generator"
        changed.append({name: numbers(value) for name, value in arguments.items()})
    identical(card, results[0], results[1], "called twice")
    assert_same(changed[0], changed[1], f"{card.name} called twice leaves arguments that")


class _StoppedError(Exception):
    pass


def interrupted(card: Card) -> None:
    """An error of a function that is given, at its first or second call, passes through; nothing stays switched."""
    for name, function in drawn(card).items():
        for calls in (1, 2) if callable(function) and not isinstance(function, nn.Module) else ():
            arguments = drawn(card)
            arguments[name] = _stopped(arguments[name], calls)
            before = {key: (numbers(value), flags(value)) for key, value in arguments.items()}
            try:
                result(card, arguments)
            except _StoppedError:
                pass
            else:
                assert calls > 1, f"{card.name} goes on although {name} fails"
            _assert_untouched(card, arguments, before, f" where {name} fails")


def _stopped(function: Callable[..., Any], calls: int) -> Callable[..., Any]:
    left = [None] * (calls - 1)

    def stopping(*given: Any, **named: Any) -> Any:
        if not left:
            raise _StoppedError
        left.pop()
        return function(*given, **named)

    return stopping


def refusals(card: Card) -> None:
    """NaN, counts of none, no names and unknown ones are refused with a sentence, before anything is changed."""

    def call(given: dict[str, Any]) -> Any:
        before = {name: (numbers(value), flags(value)) for name, value in given.items()}
        try:
            return result(card, given)
        except (ValueError, TypeError):
            for name, value in given.items():
                assert_same((numbers(value), flags(value)), before[name], f"{card.name}, refusing, changes {name}")
            raise

    asked, changes = drawn(card), card.example.get("changes", ())
    functions = [name for name, value in asked.items() if callable(value)]
    refuse_numbers(card, call, names=[name for name in asked if name not in (*changes, *functions)])
    for name in functions:
        given = drawn(card)
        bad = {**given, name: spoilt(given[name], math.nan)}
        if name not in changes and bad[name] is not None:
            assert_refused(card, f"NaN from {name}", lambda bad=bad: (call(bad),))
    for name, value in asked.items():
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            for bad, said in (([], name), ([*value[:-1], "nobody"], "nobody")):
                given = {**drawn(card), name: bad}
                assert_refused(card, f"{bad} as {name}", lambda given=given: (call(given),), said)


CHECKS = (resulting, sensitive, untouched, repeatable, interrupted, refusals)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS",
    "flags",
    "interrupted",
    "numbers",
    "refusals",
    "repeatable",
    "resulting",
    "sensitive",
    "untouched",
]
