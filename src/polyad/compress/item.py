"""The interface of what a step of a recipe works on."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn

from polyad.allocate.curve import Curve
from polyad.compress.costs import Prices
from polyad.compress.draft import Draft
from polyad.compress.recipe import Step
from polyad.models.blocks import Block
from polyad.models.replacement import Replacement
from polyad.statistics import Stats


class Item(ABC):
    """One thing that a step makes smaller: its name, the paths of its layers, its sizes and what each makes of it."""

    step: Step

    @property
    @abstractmethod
    def name(self) -> str:
        """A layer's path, or a block's PATH:KIND."""

    @property
    @abstractmethod
    def paths(self) -> tuple[str, ...]:
        """The paths of its layers."""

    @property
    def block(self) -> Block | None:
        """The block that its weights are cut in, if its layers are cut together."""
        return None

    @abstractmethod
    def needs(self) -> dict[str, set[str]]:
        """The statistics that the step reads of it, by module path."""

    @abstractmethod
    def holds(self, model: nn.Module) -> int:
        """A bound of the bytes that solving it takes, beside its weights and statistics."""

    @abstractmethod
    def curve(self, draft: Draft, stats: Stats, prices: Prices) -> Curve:
        """Every size that costs less than leaving it as it is, with its cost and its squared error."""

    @abstractmethod
    def solve(self, draft: Draft, stats: Stats, size: int) -> Replacement | None:
        """New weights at a size; None where it stays as it is."""

    @abstractmethod
    def without_slow(self, curve: Curve, draft: Draft) -> Curve:
        """The curve without the sizes at which it is slower than before on this machine."""
