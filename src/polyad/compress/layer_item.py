"""A layer under a factorisation or a quantisation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from polyad.allocate.curve import WHOLE, Curve
from polyad.compress.choices import cheaper_choices, even_sizes, output_error
from polyad.compress.costs import Prices, cost, quantize_factors
from polyad.compress.draft import Draft
from polyad.compress.item import Item
from polyad.compress.recipe import ADDS, Step
from polyad.evaluation.clock import break_even
from polyad.formats import Format, Sum
from polyad.models.layer_matrices import CONVOLUTIONS, matrix_shape
from polyad.models.replacement import Replacement
from polyad.statistics import Stats

BITS = (2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True, eq=False)
class LayerItem(Item):
    """A layer under a factorisation or a quantisation.

    A factorisation of a layer that is compressed already treats what is left over and adds to it; a quantisation of
    factors quantises each of them.
    """

    step: Step
    path: str

    @property
    def name(self) -> str:
        return self.path

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,)

    def needs(self) -> dict[str, set[str]]:
        names = {*self.step.card.needs.get("", ())} | ({"mean"} if self.step.options.get("centre") else set())
        return {self.path: names} if names else {}

    def holds(self, model: nn.Module) -> int:
        shape = matrix_shape(model.get_submodule(self.path))
        holds = self.step.card.holds
        return 64 * shape[0] * shape[1] if holds is None else holds(shape, **self.step.options)

    def curve(self, draft: Draft, stats: Stats, prices: Prices) -> Curve:
        weight, step, errors = draft.dense_weight(self.path), self.step, None
        shape = (weight.shape[0], weight.shape[1])
        if step.kind == "quantize":
            choices = [self._round(weight, stats, bits, prices.count) for bits in BITS]
        elif step.card.curve is None:
            raise ValueError(
                f"{step.card.name} cannot be sized by a budget; give it a rank: {step.card.name}:rank=64"
            )
        else:
            errors = step.card.curve(weight, stats.get(self.path), **step.options).tolist()
            choices = [
                (rank, prices.price_of(step, shape, rank, lambda r=rank: self._factor(weight, stats, r)), errors[
                    min(rank, len(errors) - 1)])
                for rank in even_sizes(min(shape) + 1)
            ]  # fmt: skip
        return cheaper_choices(choices, prices.dense(shape), errors)

    def _round(self, weight: Tensor, stats: Stats, bits: int, count: str) -> tuple[int, float, float]:
        rounded = self.step.card.function(weight, bits, **self.step.options)
        return bits, cost(rounded, count), output_error(weight - rounded.to_dense(), stats, self.path)

    def _factor(self, weight: Tensor, stats: Stats, rank: int) -> Format:
        step, moments = self.step, stats.get(self.path)
        if moments is not None and moments.second is not None and moments.second.shape[0] != weight.shape[1]:
            raise ValueError(
                f"{step.card.name} cannot follow a step that changed the layer's width from "
                f"{moments.second.shape[0]} to {weight.shape[1]}: save the result and compress that"
            )
        if step.kind == "decompose":
            return step.card.function(weight, rank, **step.options)
        return step.card.function(weight, moments, rank, **step.options)

    def solve(self, draft: Draft, stats: Stats, size: int) -> Replacement | None:
        if size == WHOLE:
            return None
        before, aim = draft.format(self.path), draft.dense_weight(self.path)
        if self.step.kind == "quantize":
            weight = quantize_factors(self.step, size, aim if before is None else before)
        elif before is None and any(earlier.kind in (*ADDS, "quantize") for earlier in draft.steps):
            return None  # earlier steps could have left something over, and left the layer as it was
        elif before is None:
            weight = self._factor(aim, stats, size)
        else:
            rest = self._factor(aim - before.to_dense().to(aim.dtype), stats, size)
            weight = Sum((*(before.terms if isinstance(before, Sum) else (before,)), rest))
        return Replacement({f"{self.path}.weight": weight})

    def without_slow(self, curve: Curve, draft: Draft) -> Curve:
        if self.step.kind == "quantize":
            raise ValueError(
                "avoid_slow leaves nothing to choose: quantised layers are dequantised at every call and never "
                "faster than dense ones here; leave it out, or use a factorisation"
            )
        if isinstance(draft.model.get_submodule(self.path), CONVOLUTIONS):
            raise ValueError(
                f"avoid_slow times linear layers, and {self.path} is a convolution; leave avoid_slow out"
            )
        weight = draft.dense_weight(self.path)
        fast = (curve.sizes == WHOLE) | (curve.sizes <= break_even((weight.shape[0], weight.shape[1]), weight.dtype))
        return Curve(curve.sizes[fast], curve.costs[fast], curve.errors[fast], curve.sweep)
