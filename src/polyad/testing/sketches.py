"""The contract of a sketch: random, short, and right in the mean, with an error no larger than stated.

The card's ``example`` says how it is tried. ``arguments`` is a function of a generator that draws what is sketched,
floats in float64. ``estimate``, a function of the sketch and of the arguments by name, is what the sketch is for (the
result itself by default), ``exact`` what it estimates, and ``bound`` the root of its mean squared error over seeds.
``size`` gives the numbers or rows that a sketch holds and how many it may hold.
``scale`` lists arguments that may be multiplied by any number, alone or, in a tuple, together.

>>> import polyad.algorithms
>>> from polyad._card import card
>>> for check in CHECKS:
...     check(card("coordinated_sampling"))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from polyad._card import Card
from polyad.testing._standalone import (
    DTYPES,
    LAYOUTS,
    assert_identical,
    change_tensors,
    draw_arguments,
    multiply,
    refuse_numbers,
    refuse_shapes,
    result,
    tensors,
)

SEEDS = 160
"""Sketches over which means are taken."""


def errors(card: Card, arguments: Mapping[str, Any], seeds: int = SEEDS) -> Tensor:
    """The errors of so many sketches' estimates, in units of the error that is stated, (seeds, numbers)."""
    exact = card.example["exact"](**arguments).double()
    estimates = [_estimate(card, arguments, seed) for seed in range(seeds)]
    return torch.stack([(one - exact).flatten() for one in estimates]) / float(card.example["bound"](**arguments))


def _estimate(card: Card, arguments: Mapping[str, Any], seed: int) -> Tensor:
    return card.example.get("estimate", lambda sketch, **_: sketch)(
        result(card, arguments, seed), **arguments
    ).double()


def bias(card: Card) -> None:
    """The mean of many estimates is nearer by as much as chance allows, in float64 and float32."""
    for dtype in DTYPES:
        apart = errors(card, draw_arguments(card, 0, dtype))
        mean, chance = float(apart.mean(0).norm()), float(apart.square().sum(1).mean() / SEEDS) ** 0.5
        slack = 1e3 * torch.finfo(dtype).eps
        assert mean <= 3 * chance + slack, (
            f"{card.name} of {dtype} is off by {mean / max(chance, slack):.3g} standard errors"
        )


def error_bound(card: Card) -> None:
    """The mean squared error is within what is stated, for several inputs and at scales of 1e-15 and 1e15."""
    names = card.example.get("scale", ())
    for seed in range(3):
        _assert_bounded(card, draw_arguments(card, seed), f"input {seed}")
    for group in names:
        for factor in (1e-15, 1e15):
            arguments = draw_arguments(card, 0, torch.float32)
            for name in (group,) if isinstance(group, str) else group:
                arguments[name] = multiply(arguments[name], factor)
            _assert_bounded(card, arguments, f"{group} times {factor:g}")


def _assert_bounded(card: Card, arguments: Mapping[str, Any], what: str) -> None:
    error = float(errors(card, arguments, SEEDS // 4).square().sum(1).mean()) ** 0.5
    assert error <= 1, f"{card.name} of {what} has {error:.3g} times the error that is stated"


def sensitive(card: Card) -> None:
    """The bound says something: the estimate of half of the input breaks it."""
    arguments = draw_arguments(card)
    exact, bound = card.example["exact"](**arguments), float(card.example["bound"](**arguments))
    assert float(exact.norm()) > bound, f"the bound of {card.name} allows an estimate of zero on its example"


def size(card: Card) -> None:
    """A sketch holds no more than it may, whatever the seed, and less than what is sketched."""
    if "size" not in card.example:
        return
    for seed in range(10):
        arguments = draw_arguments(card, seed)
        count, allowed = card.example["size"](result(card, arguments, seed), **arguments)
        assert count <= allowed, f"{card.name} holds {count} where {allowed} are allowed"


def random(card: Card) -> None:
    """A seed gives one sketch and another seed another; torch's own generator and the input are left alone."""
    arguments, before = draw_arguments(card), torch.get_rng_state()
    first = result(card, arguments, 1)
    assert_identical(card, result(card, arguments, 1), first, "called twice with one seed")
    assert torch.equal(torch.get_rng_state(), before), f"{card.name} draws from torch's own generator"
    assert_identical(card, arguments, draw_arguments(card), "changes its arguments and then")
    other = tensors(_estimate(card, arguments, 2))
    same = all(torch.equal(t, other[name]) for name, t in tensors(_estimate(card, arguments, 1)).items())
    assert not same, f"{card.name} gives one estimate for two seeds"
    for name, tensor in tensors(first).items():
        assert bool(torch.isfinite(tensor).all()), f"{card.name} gives numbers that are not finite at {name}"


def layout(card: Card) -> None:
    """Views with other strides and tensors that require a gradient give the same sketch."""
    plain = draw_arguments(card)
    expected = _estimate(card, plain, 1)
    for what, change in LAYOUTS.items():
        apart = float(
            (_estimate(card, change_tensors(plain, change), 1).detach() - expected).norm() / expected.norm()
        )
        assert apart < 1e-9, f"{card.name} of the same numbers ({what}) differs by {apart:.3g}"


def refusals(card: Card) -> None:
    """NaN, infinity, counts of none, whole numbers and empty tensors are refused, and the argument is named."""
    refuse_numbers(card, lambda arguments: result(card, arguments))
    refuse_shapes(card, lambda arguments: result(card, arguments))


CHECKS = (bias, error_bound, sensitive, size, random, layout, refusals)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = ["CHECKS", "bias", "error_bound", "errors", "layout", "random", "refusals", "sensitive", "size"]
