"""Parts of the contract of allocations: curves and budgets, the sizes chosen, what they cost and lose."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from polyad._card import Card
from polyad.allocate.curve import WHOLE, Curve, Sizes
from polyad.allocate.greedy import lower_hull

Items = Mapping[str, Curve]
Places = Mapping[str, int]

LOSSES: dict[str, Callable[[Iterable[tuple[Curve, int]]], float]] = {
    "sum": lambda chosen: sum(float(curve.errors[at]) for curve, at in chosen),
    "largest": lambda chosen: max(float(c.errors[at]) / max(float(c.errors[0]), 1e-300) for c, at in chosen),
}
"""What an allocation may minimise, of curves and the places chosen on them."""


def call_allocation(card: Card, items: Items, budget: float) -> Sizes:
    """The sizes, with the example's arguments, and scores where the card needs statistics of layers."""
    arguments = {name: value for name, value in card.example.items() if name != "minimises"}
    if card.needs.get("layer"):
        arguments = {"scores": {name: 0.1 * i for i, name in enumerate(sorted(items))}, **arguments}
    return card.function(items, budget, **arguments)


def problems(card: Card, *, rough: bool = False, count: int = 24) -> Iterator[tuple[Items, float]]:
    """Items and a budget for them: errors of falling spectra, or of any kind, for methods that may be given these.

    One to three items of one to six choices, whose last is the item as it is, at no error.
    """
    for seed in range(count):
        generator = np.random.default_rng(seed)
        draw = jagged_curve if rough or (seed % 2 and "minimises" in card.example) else spectrum
        items = {f"item{i}": draw(generator) for i in range(int(generator.integers(1, 4)))}
        least, whole = (sum(float(curve.costs[at]) for curve in items.values()) for at in (0, -1))
        yield items, float(generator.integers(int(least), int(whole) + 3))


def spectrum(generator: np.random.Generator) -> Curve:
    """Errors of a falling spectrum at ranks 1, 2, …, of which those beyond the last choice would cost too much."""
    count = int(generator.integers(1, 7))
    squares = np.sort(generator.integers(0, 50, count + int(generator.integers(1, 4))).astype(float))[::-1]
    sweep = np.append(squares[::-1].cumsum()[::-1], 0.0)
    sizes = np.array([*range(1, count), WHOLE])
    return Curve(sizes, _costs(generator, count), np.append(sweep[1:count], 0.0), sweep)


def jagged_curve(generator: np.random.Generator) -> Curve:
    """Errors that fall in steps of any size, and now and then rise."""
    curve = spectrum(generator)
    errors = generator.integers(0, 100, len(curve.sizes) - 1).astype(float)
    errors = errors if generator.random() < 0.5 else np.sort(errors)[::-1]
    return Curve(curve.sizes, curve.costs, np.append(errors, 0.0), curve.sweep)


def _costs(generator: np.random.Generator, count: int) -> np.ndarray:
    return generator.integers(1, 5, count).cumsum() * float(generator.integers(1, 6))


def costs_even(seed: int) -> Items:
    """Three items of five choices that cost 1 to 5, with errors of falling spectra."""
    generator = np.random.default_rng(seed)
    items = {}
    for i in range(3):
        squares = np.sort(generator.random(5))[::-1]
        sweep = np.append(squares[::-1].cumsum()[::-1], 0.0)
        items[f"item{i}"] = Curve(np.arange(1, 6), np.arange(1.0, 6.0), sweep[1:], sweep)
    return items


def places(items: Items, sizes: Sizes) -> dict[str, int]:
    """The places of the sizes on their curves."""
    return {name: list(items[name].sizes).index(size) for name, size in sizes.items()}


def cost(items: Items, at: Places) -> float:
    """The cost of the places together."""
    return sum(float(items[name].costs[place]) for name, place in at.items())


def loss(card: Card, items: Items, at: Places) -> float:
    """The number that the card says it minimises."""
    return LOSSES[card.example["minimises"]]([(items[name], place) for name, place in at.items()])


def step(items: Items) -> float:
    """The most that one step along a curve's lower hull, or from its end to the last choice, takes from the error."""
    return max(
        float(curve.errors[a] - curve.errors[b])
        for curve in items.values()
        for a, b in itertools.pairwise([*lower_hull(curve), len(curve.sizes) - 1])
    )
