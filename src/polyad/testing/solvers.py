"""The contract of a solver: a problem goes in, and what comes out meets the conditions that its docstring states.

The card's ``example`` says how it is tried. ``arguments`` is a function of a generator that draws a problem, floats
in float64, and ``off`` one of the result and of the arguments by name: how far the result is from the conditions, in
units of what is allowed. ``scale`` lists arguments that may be multiplied by any number, alone or, in a tuple,
together. A class has ``call``, a function of the arguments that gives the result.

>>> import polyad.algorithms
>>> from polyad._card import card
>>> for check in CHECKS:
...     check(card("lasso"))
"""

from __future__ import annotations

import torch

from polyad._card import Card
from polyad.testing._standalone import (
    DTYPES,
    LAYOUTS,
    assert_identical,
    change_tensors,
    disturb,
    draw_arguments,
    multiply,
    off,
    refuse_numbers,
    refuse_shapes,
    result,
    tensors,
)


def solution(card: Card) -> None:
    """Several drawn problems are solved within what is stated, in float64 and float32, in the problem's precision."""
    for dtype in DTYPES:
        for seed in range(3):
            arguments = draw_arguments(card, seed, dtype)
            answer = result(card, arguments, seed)
            for name, tensor in tensors(answer).items():
                assert bool(torch.isfinite(tensor).all()), f"{card.name} gives numbers that are not finite at {name}"
                precise = not tensor.is_floating_point() or tensor.dtype in (dtype, torch.float64)
                assert precise, f"{card.name} of {dtype} gives {name} in {tensor.dtype}"
            distance = off(card, answer, arguments)
            assert distance <= 1, (
                f"{card.name} of {dtype}, problem {seed}, is {distance:.3g} times as far off as stated"
            )


def sensitive(card: Card) -> None:
    """A solution that is off by a tenth is no solution by what the example measures."""
    arguments = draw_arguments(card)
    distance = off(card, disturb(result(card, arguments)), arguments)
    assert distance > 1, f"the example of {card.name} takes a result that is off by a tenth for a solution"


def any_scale(card: Card) -> None:
    """Problems times 1e-30 and 1e30 are solved as well, in float64 and float32."""
    for names in card.example.get("scale", ()):
        for dtype in DTYPES:
            for factor in (1e-30, 1e30):
                arguments = draw_arguments(card, 0, dtype)
                for name in (names,) if isinstance(names, str) else names:
                    arguments[name] = multiply(arguments[name], factor)
                distance = off(card, result(card, arguments), arguments)
                assert distance <= 1, (
                    f"{card.name} with {names} times {factor:g} in {dtype} is {distance:.3g} times off"
                )


def repeatable(card: Card) -> None:
    """A problem has one solution, whatever torch's own generator is at, and stays as it is."""
    arguments, before = draw_arguments(card), torch.get_rng_state()
    first = result(card, arguments)
    assert_identical(card, result(card, arguments), first, "called twice")
    assert torch.equal(torch.get_rng_state(), before), f"{card.name} draws from torch's own generator"
    assert_identical(card, arguments, draw_arguments(card), "changes its arguments and then")


def layout(card: Card) -> None:
    """Views with other strides and tensors that require a gradient are the same problem."""
    plain = draw_arguments(card)
    for what, change in LAYOUTS.items():
        arguments = change_tensors(plain, change)
        distance = off(card, change_tensors(result(card, arguments), lambda t: t.detach()), plain)
        assert distance <= 1, f"{card.name} of the same numbers ({what}) is {distance:.3g} times as far off as stated"


def refusals(card: Card) -> None:
    """NaN, infinity, counts of none, whole numbers and empty tensors are refused, and the argument is named."""
    refuse_numbers(card, lambda arguments: result(card, arguments))
    refuse_shapes(card, lambda arguments: result(card, arguments))


CHECKS = (solution, sensitive, any_scale, repeatable, layout, refusals)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = ["CHECKS", "any_scale", "layout", "refusals", "repeatable", "sensitive", "solution"]
