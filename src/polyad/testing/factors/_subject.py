"""Parts of the contract of factorisations: a layer and its inputs, the result, its error in the metric."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyad._card import Card
from polyad.formats import Format
from polyad.statistics import Moments
from polyad.testing._contract import seeded
from polyad.testing._moments import moments, second_moment

SHAPES = ((7, 12), (12, 7), (6, 6), (1, 5), (5, 1), (40, 6), (6, 40))
"""Weights on which a method is tried: wide and tall, square, of one row and of one column, very tall and wide."""
WIDE = (torch.float64, torch.float32)
HALF = (torch.bfloat16, torch.float16)
ROWS = 300


def layer(
    shape: tuple[int, int] = (7, 12), dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Moments]:
    """A weight (out, in) and the statistics of 300 inputs, whose directions differ a hundredfold in size."""
    generator, (_, inner) = seeded(seed), shape
    weight = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    mixing = torch.linalg.qr(torch.randn(inner, inner, generator=generator, dtype=torch.float64)).Q
    sizes = torch.logspace(0, -2, inner, dtype=torch.float64)
    rows = torch.randn(ROWS, inner, generator=generator, dtype=torch.float64) * sizes
    return weight, moments((rows + 0.5 * sizes) @ mixing, weight)


def call_factorisation(card: Card, weight: Any, stats: Moments | None, **given: Any) -> Format:
    """The result with the example's arguments and those given here."""
    arguments = {name: value for name, value in card.example.items() if name != "metric"}
    return card.function(weight, stats, **{**arguments, **given})


def error(card: Card, difference: Tensor, stats: Moments) -> float:
    """The squared error in the card's metric, in float64."""
    wide = difference.double()
    stated = card.example.get("metric")
    if stated is None and "second" not in card.needs.get("", ()):
        return float(wide.square().sum())
    moment = second_moment(stats) if stated is None else stated(stats)
    return float(((wide @ moment.double()) * wide).sum())


def remainder(card: Card, weight: Tensor, stats: Moments, rank: int) -> float:
    """The squared error that a rank leaves."""
    factors = call_factorisation(card, weight, stats, rank=rank)
    return error(card, weight.double() - factors.to_dense().double(), stats)


def ranks(weight: Tensor) -> range:
    """Every rank of a weight."""
    return range(1, min(weight.shape) + 1)
