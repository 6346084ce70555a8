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
from polyad.testing._refusals import assert_refused
from polyad.testing._saved import assert_same
from polyad.testing._standalone import (
    assert_identical,
    disturb,
    draw_arguments,
    off,
    refuse_numbers,
    result,
    spoil,
    tensors,
)


def numbers(value: Any) -> dict[str, Any]:
    """Every tensor of an argument, copied, by name; those of a model with buffers that are never saved."""
    if isinstance(value, Adapters):
        return numbers(value.model)
    if isinstance(value, nn.Module):
        every = {**dict(value.named_parameters()), **dict(value.named_buffers())}
        return {name: tensor.detach().clone() for name, tensor in every.items()}
    if isinstance(value, Mapping):
        return {str(key): numbers(item) for key, item in value.items()}
    return {name: tensor.clone() for name, tensor in tensors(value).items()}


def flags(value: Any) -> dict[str, Any]:
    """The state of an argument beside its numbers: what is trained, modes, classes, hooks, which adapters act."""
    if isinstance(value, Adapters):
        return {**flags(value.model), "active": {name: float(weight) for name, weight in value.active.items()}}
    if isinstance(value, nn.Module):
        state: dict[str, Any] = {f"{name} is trained": p.requires_grad for name, p in value.named_parameters()}
        for path, module in value.named_modules():
            hooks = len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
            state[f"module {path!r}"] = {"class": type(module).__name__, "training": module.training, "hooks": hooks}
        return state
    if isinstance(value, Mapping):
        return {str(key): flags(item) for key, item in value.items()}
    return {"is trained": value.requires_grad} if isinstance(value, Tensor) else {}


def states(arguments: Mapping[str, Any]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Numbers and flags of every argument."""
    return {name: (numbers(value), flags(value)) for name, value in arguments.items()}


def outcome(card: Card) -> None:
    """Several drawn inputs give what is stated, in numbers that are finite, of the class that is annotated."""
    annotated = None if "call" in card.example else get_type_hints(card.function).get("return")
    kind = getattr(annotated, "__origin__", annotated)
    for seed in range(3):
        arguments = draw_arguments(card, seed)
        answer = result(card, arguments)
        assert not isinstance(kind, type) or isinstance(answer, kind), f"{card.name} gives a {type(answer).__name__}"
        for name, tensor in tensors(answer).items():
            assert bool(torch.isfinite(tensor).all()), f"{card.name} gives numbers that are not finite at {name}"
        distance = off(card, answer, arguments)
        assert distance <= 1, f"{card.name}, input {seed}, is {distance:.3g} times as far off as stated"


def sensitive(card: Card) -> None:
    """A result that is off by a tenth is no result by what the example measures."""
    arguments = draw_arguments(card)
    distance = off(card, _disturb_all(result(card, arguments)), arguments)
    assert distance > 1, f"the example of {card.name} takes a result that is off by a tenth for the right one"


def _disturb_all(answer: Any) -> Any:
    if isinstance(answer, nn.Module):
        changed = copy.deepcopy(answer)
        changed.load_state_dict(disturb(dict(answer.state_dict())))
        return changed
    if isinstance(answer, Mapping):
        return {key: _disturb_all(item) for key, item in answer.items()}
    if isinstance(answer, list) and all(isinstance(item, float) for item in answer):
        return disturb(torch.tensor(answer, dtype=torch.float64)).tolist()
    return disturb(answer)


def side_effects(card: Card) -> None:
    """Arguments keep every number, but those the example names, and every flag; the result is no view of them."""
    arguments = draw_arguments(card)
    before = states(arguments)
    answer = result(card, arguments)
    _assert_untouched(card, arguments, before, "")
    after = states(arguments)
    with torch.no_grad():
        for tensor in (t for t in tensors(answer).values() if t.is_floating_point()):
            tensor.add_(1)
    _assert_untouched(card, arguments, after, " once its result is changed")


def _assert_untouched(card: Card, arguments: Mapping[str, Any], before: Mapping[str, Any], when: str) -> None:
    for name, (now, switched) in states(arguments).items():
        what = f"{card.name}{when} changes {name}, which now"
        assert_same(switched, before[name][1], what)
        if name not in card.example.get("changes", ()):
            assert_same(now, before[name][0], what)


def repeatable(card: Card) -> None:
    """The same inputs, made anew, give the same result and changes; torch's own generator is left alone."""
    results, changed = [], []
    for _ in range(2):
        arguments, before = draw_arguments(card), torch.get_rng_state()
        results.append(result(card, arguments))
        assert torch.equal(torch.get_rng_state(), before), f"{card.name} draws from torch's own generator"
        changed.append({name: numbers(value) for name, value in arguments.items()})
    assert_identical(card, results[0], results[1], "called twice")
    assert_same(changed[0], changed[1], f"{card.name} called twice leaves arguments that")


def interruption(card: Card) -> None:
    """An error of a function that is given, at its first or second call, passes through; nothing stays switched."""
    for name, function in draw_arguments(card).items():
        for calls in (1, 2) if callable(function) and not isinstance(function, nn.Module) else ():
            arguments = draw_arguments(card)
            arguments[name] = _stop_at(arguments[name], calls)
            before = states(arguments)
            try:
                result(card, arguments)
            except InterruptedError:
                pass
            else:
                assert calls > 1, f"{card.name} goes on although {name} fails"
            _assert_untouched(card, arguments, before, f" where {name} fails")


def _stop_at(function: Callable[..., Any], calls: int) -> Callable[..., Any]:
    left = [None] * (calls - 1)

    def call(*args: Any, **kwargs: Any) -> Any:
        if not left:
            raise InterruptedError
        left.pop()
        return function(*args, **kwargs)

    return call


def refusals(card: Card) -> None:
    """NaN, counts of none, no names and unknown ones are refused with a sentence, before anything is changed."""

    def call(arguments: dict[str, Any]) -> Any:
        before = states(arguments)
        try:
            return result(card, arguments)
        except (ValueError, TypeError):
            assert_same(states(arguments), before, f"what {card.name} is given and refuses")
            raise

    asked, changes = draw_arguments(card), card.example.get("changes", ())
    functions = [name for name, value in asked.items() if callable(value)]
    refuse_numbers(card, call, names=[name for name in asked if name not in (*changes, *functions)])
    for name in functions:
        arguments = draw_arguments(card)
        bad = {**arguments, name: spoil(arguments[name], math.nan)}
        if name not in changes and bad[name] is not None:
            assert_refused(card, f"NaN from {name}", lambda bad=bad: (call(bad),))
    for name, value in asked.items():
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            for bad, said in (([], name), ([*value[:-1], "nobody"], "nobody")):
                arguments = {**draw_arguments(card), name: bad}
                assert_refused(card, f"{bad} as {name}", lambda arguments=arguments: (call(arguments),), said)


CHECKS = (outcome, sensitive, side_effects, repeatable, interruption, refusals)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "flags", "interruption", "numbers", "outcome", "refusals", "repeatable", "sensitive", "side_effects",
    "states",
]  # fmt: skip
