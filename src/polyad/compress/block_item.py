"""A block: layers whose inner dimension a rule cuts together."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from polyad.allocate.curve import WHOLE, Curve
from polyad.compress.choices import cheaper_choices, even_sizes
from polyad.compress.costs import Prices
from polyad.compress.draft import Draft
from polyad.compress.item import Item
from polyad.compress.recipe import Step
from polyad.models.blocks import Block
from polyad.models.layer_matrices import matrix_shape
from polyad.models.replacement import Replacement
from polyad.statistics import Stats


@dataclass(frozen=True, eq=False)
class BlockItem(Item):
    """Layers whose inner dimension a rule cuts together."""

    step: Step
    cut: Block

    @property
    def block(self) -> Block:
        return self.cut

    @property
    def name(self) -> str:
        return self.block.name

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(self.block.roles.values())

    def needs(self) -> dict[str, set[str]]:
        roles = self.block.roles
        return {roles[role]: {*names} for role, names in self.step.card.needs.items() if role in roles}

    def holds(self, model: nn.Module) -> int:
        shapes = {role: matrix_shape(model.get_submodule(path)) for role, path in self.block.roles.items()}
        holds = self.step.card.holds
        return 0 if holds is None else holds(shapes, **self.step.options)

    def curve(self, draft: Draft, stats: Stats, prices: Prices) -> Curve:
        assert self.step.card.curve is not None
        weights = draft.parameters(self.paths)
        errors = self.step.card.curve(self.block, weights, stats, **self.step.options).tolist()
        units = len(errors) - 1
        shapes = {role: weights[f"{path}.weight"].shape for role, path in self.block.roles.items()}

        def price(kept: int) -> float:
            return sum(
                prices.dense((out, inner * kept // units) if role in ("down", "o") else (out * kept // units, inner))
                for role, (out, inner) in shapes.items()
            )

        return cheaper_choices([(k, price(k), errors[k]) for k in even_sizes(units)], price(units), errors)

    def solve(self, draft: Draft, stats: Stats, size: int) -> Replacement | None:
        if size == WHOLE:
            return None
        return self.step.card.function(self.block, draft.parameters(self.paths), stats, size, **self.step.options)

    def without_slow(self, curve: Curve, draft: Draft) -> Curve:  # noqa: ARG002 - narrower layers are never slower
        return curve
