"""A run of a compression as it was asked for: the model, the recipe, the share to keep, and the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from polyad._arguments import method_from
from polyad.compress.plain_widths import alike, refuse_unplain
from polyad.compress.recipe import Step, check_keep
from polyad.compress.terms import Terms
from polyad.data.calibration import CALIBRATION_WINDOWS


def read_allocation(text: str) -> Callable[..., dict[str, int]]:
    """The allocation of the catalogue that has this name, with arguments after a colon.

    >>> read_allocation("block_influence:temperature=0.2").keywords
    {'temperature': 0.2}
    """
    method = method_from(text, ["allocate"])
    return method if method.keywords else method.func


@dataclass(frozen=True)
class Asked:
    """The settings of a run besides its method: the same for every point of a comparison."""

    calibrate: tuple[Any, ...] = ("stdlib",)
    evaluate: tuple[Any, ...] = ("stdlib",)
    budget: str = "parameters"
    select: Any = None
    allocate: str | None = None
    store: torch.dtype = torch.bfloat16
    calibration_windows: int = CALIBRATION_WINDOWS
    windows: int = 24
    alternations: int = 15
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    seed: int = 0
    avoid_slow: bool = False
    plain: bool = False
    """One width for all layers of a kind, which plain transformers loads."""


@dataclass(frozen=True)
class Request:
    """A run: the model called ``name`` is compressed by the steps of a recipe, so that the share ``keep`` stays."""

    name: str
    recipe: tuple[Step, ...]
    keep: float | None
    asked: Asked

    def check(self) -> None:
        """Refuse, before any model is loaded, what no model could be compressed by."""
        check_keep(self.recipe, self.keep)
        if self.asked.allocate:
            read_allocation(self.asked.allocate)
        if self.asked.plain:
            refuse_unplain(self.recipe, self.asked.allocate)

    @property
    def shape(self) -> dict[str, Any]:
        """The recipe and the budget, as the saved folder states them."""
        return {"recipe": [step.to_json() for step in self.recipe], "keep": self.keep, "budget": self.asked.budget}

    def to_json(self) -> dict[str, Any]:
        """The run as JSON: one that was stopped goes on where all of this is the same."""
        recipe = [step.to_json() for step in self.recipe]
        settings = {name: value for name, value in asdict(self.asked).items() if name != "plain" or value}
        return {"compress": self.name, "recipe": recipe, "keep": self.keep, **settings}

    def terms(self) -> Terms:
        """The terms of the plan, with the calibration texts where they are read."""
        asked = self.asked
        allocate = alike if asked.plain else read_allocation(asked.allocate) if asked.allocate else None
        terms = Terms(
            self.recipe, self.keep, asked.budget, None, asked.select, allocate, None, asked.avoid_slow, asked.seed,
            asked.calibration_windows,
        )  # fmt: skip
        return replace(terms, text=asked.calibrate) if terms.reads_text else terms
