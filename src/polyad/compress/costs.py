"""The exact cost of a layer in the unit of the budget, from the format that a method makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from polyad.compress.recipe import Step
from polyad.formats import Dense, Format, Levels, LowRank, Product, Quantized, Sum, Superblocks

COUNTS = ("parameters", "bytes", "flops")


def cost(format: Format, count: str) -> float:
    """A format's cost: parameters, bytes (floats that may be cast count as bfloat16), or operations a row."""
    if count == "parameters":
        return format.parameters
    return format.to(torch.bfloat16).nbytes if count == "bytes" else format.flops(1)


def layer_cost(module: nn.Module, count: str) -> float:
    """The cost of a linear layer as it is, without its bias."""
    weight: Any = module.weight
    if not isinstance(weight, Tensor):
        return cost(weight(), count)
    return cost(Dense(torch.empty(weight.shape, device="meta")), count)


class Prices:
    """Costs of matrices and of what a method makes of them, once the quantisations ``later`` were applied.

    A format's cost follows from its card (``template``, or low rank) without numbers. Where the card does not say
    what the method makes, one layer of each shape is solved at each size, and its cost is remembered.
    """

    def __init__(self, count: str, later: Iterable[Step] = ()) -> None:
        self.count = count
        self._later = [step for step in later if step.kind == "quantize" and count != "parameters"]
        self._known: dict[tuple[Any, ...], float] = {}

    def dense(self, shape: tuple[int, ...]) -> float:
        """The cost of a dense matrix of this shape."""
        return self._price(("dense", shape), lambda: Dense(torch.empty(shape, device="meta")))

    def price_of(self, step: Step, shape: tuple[int, int], rank: int, solve: Callable[[], Format]) -> float:
        """The cost of what a step makes of a matrix of this shape at a rank; ``solve`` makes it where need be."""

        def format() -> Format:
            if step.card.template is not None:
                return step.card.template(shape, rank, **step.options)
            return LowRank.empty(shape, rank) if step.card.makes is LowRank else solve()

        return self._price((step.card.name, shape, rank), format)

    def _price(self, key: tuple[Any, ...], make: Callable[[], Format]) -> float:
        if key not in self._known:
            format = make()
            for step in self._later:  # in parameters a code counts one, as the number did
                format = quantize_factors(step, step.size or 0, format)
            self._known[key] = cost(format, self.count)
        return self._known[key]


def quantize_factors(step: Step, bits: int, value: Tensor | Format) -> Format:
    """Every floating-point factor of a value, quantised."""
    if isinstance(value, Tensor | Dense):
        return step.card.function(value if isinstance(value, Tensor) else value.weight, bits, **step.options)
    if isinstance(value, LowRank):
        factors = (value.left, value.right)
        return Product(tuple(step.card.function(factor.contiguous(), bits, **step.options) for factor in factors))
    if isinstance(value, Product):
        return Product(tuple(quantize_factors(step, bits, factor) for factor in value.factors))
    if isinstance(value, Sum):
        return Sum(tuple(quantize_factors(step, bits, term) for term in value.terms))
    if isinstance(value, Quantized | Superblocks | Levels):
        return value
    raise ValueError(f"{step.card.name} cannot quantise a {type(value).__name__}")
