"""What a layer costs in the unit of the budget, and the curves of choices that allocation reads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from polyad.allocate.curve import WHOLE, Curve
from polyad.compress.recipe import Step
from polyad.compress.solving import quantized
from polyad.formats import Dense, Format, LowRank
from polyad.models.blocks import Block
from polyad.models.calibration.collect import Moments

COUNTS = ("parameters", "bytes", "flops")
BITS = (2, 3, 4, 5, 6, 7, 8)


def cost(format: Format, count: str) -> float:
    """A format's cost: parameters, bytes (floats that may be cast count as bfloat16), or operations a row."""
    if count == "parameters":
        return format.parameters
    return format.to(torch.bfloat16).nbytes if count == "bytes" else format.flops(1)


def layer_cost(module: nn.Module, count: str) -> float:
    """What a linear layer costs now, its bias excluded."""
    weight: Any = module.weight
    if not isinstance(weight, Tensor):
        return cost(weight(), count)
    return cost(Dense(torch.empty(weight.shape, device="meta")), count)


Price = Callable[..., float]
"""The cost of a matrix of a shape or, with a rank, of factors of that shape."""


def prices(count: str, later: tuple[Step, ...] = ()) -> Price:
    """What matrices and factors cost once the quantisations ``later`` were applied to them; no numbers are made."""

    @functools.cache
    def price(shape: tuple[int, ...], rank: int | None = None) -> float:
        made: Format = Dense(torch.empty(shape, device="meta")) if rank is None else LowRank.empty(shape, rank)
        for step in later if count != "parameters" else ():  # a code counts one, as the number did
            made = quantized(step, step.size or 0, made)
        return cost(made, count)

    return price


def layer_curve(step: Step, weight: Tensor, stats: Moments | None, count: str, price: Price) -> Curve:
    """The choices of one layer under a method: every rank, or every number of bits, that costs less than it does."""
    shape = tuple(weight.shape)
    whole, errors = price(shape), None
    if step.kind == "quantize":
        found = [_measured(step, weight, stats, bits, count) for bits in BITS]
    elif step.card.curve is None:
        raise ValueError(f"{step.card.name} cannot be sized by a budget; give it a rank: {step.card.name}:rank=64")
    else:
        errors = step.card.curve(weight, stats, **step.options).tolist()
        ranks = even_sizes(min(shape) + 1)
        found = [(r, price(shape, r), errors[min(r, len(errors) - 1)]) for r in ranks]
    return _curve([*((s, c, e) for s, c, e in found if c < whole), (WHOLE, whole, 0.0)], errors)


def even_sizes(stop: int) -> range:
    """The sizes below ``stop`` that are offered: all of few, every fourth of dozens, every eighth of hundreds.

    Processors multiply matrices of odd widths up to half slower than the next multiple of eight.
    """
    step = 8 if stop >= 256 else 4 if stop >= 32 else 1
    return range(step, stop, step)


def _measured(step: Step, weight: Tensor, stats: Moments | None, bits: int, count: str) -> tuple[int, float, float]:
    made = step.card.function(weight, bits, **step.options)
    return bits, cost(made, count), output_error(weight - made.to_dense(), stats)


def output_error(difference: Tensor, stats: Moments | None) -> float:
    """E|D x|² for a difference D of weights; its squared Frobenius norm where no statistics are at hand."""
    if stats is None or stats.second is None:
        return float(difference.square().sum())
    return float(((difference @ stats.second.to(difference.dtype)) * difference).sum())


def block_curve(
    step: Step, block: Block, weights: Mapping[str, Tensor], stats: Mapping[str, Moments], price: Price
) -> Curve:
    """The choices of one block under a group method: every number of units that costs less than all of them."""
    assert step.card.curve is not None
    errors = step.card.curve(block, weights, stats, **step.options).tolist()
    units = len(errors) - 1
    shapes = {role: tuple(weights[path + ".weight"].shape) for role, path in block.roles.items()}

    def cut(k: int) -> float:
        inner = {role: 1 if role in ("down", "o") else 0 for role in shapes}  # the axis that is cut
        return sum(price(tuple(n * k // units if axis == inner[r] else n for axis, n in enumerate(shape)))
                   for r, shape in shapes.items())  # fmt: skip

    whole = cut(units)
    choices = ((k, cut(k), errors[k]) for k in even_sizes(units))
    return _curve([*(choice for choice in choices if choice[1] < whole), (WHOLE, whole, 0.0)], errors)


def _curve(choices: list[tuple[int, float, float]], sweep: list[float] | None) -> Curve:
    """Sorted by cost; of choices of one cost the one of least error stays."""
    best: dict[float, tuple[int, float, float]] = {}
    for choice in choices:
        if choice[1] not in best or choice[2] < best[choice[1]][2]:
            best[choice[1]] = choice
    ordered = [best[c] for c in sorted(best)]
    sizes, costs, errors = (np.array(column) for column in zip(*ordered, strict=True))
    every = None if sweep is None else np.maximum(np.array(sweep, dtype=float), 0.0)
    return Curve(sizes.astype(np.int64), costs.astype(float), np.maximum(errors.astype(float), 0.0), every)
