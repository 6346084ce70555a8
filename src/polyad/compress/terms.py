"""The terms of a plan: the recipe, the share that stays, and how it is counted and shared out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from polyad.allocate import greedy
from polyad.compress.costs import COUNTS
from polyad.compress.influence import layers_read_by
from polyad.compress.recipe import Step, check_keep
from polyad.data.calibration import CALIBRATION_WINDOWS
from polyad.models.surgery import Which


@dataclass(frozen=True, eq=False)
class Terms:
    """The recipe of a plan, its budget, and the settings that decide how the budget is shared out.

    ``text`` is what statistics are collected on, in any form that ``calibration`` reads, and ``windows`` how many
    windows of it.
    """

    steps: tuple[Step, ...]
    keep: float | None = None
    count: str = "parameters"
    text: Any = None
    select: Which | None = None
    allocate: Callable[..., dict[str, int]] | None = None
    importance: bool | None = None
    avoid_slow: bool = False
    seed: int = 0
    windows: int = CALIBRATION_WINDOWS

    def __post_init__(self) -> None:
        if self.count not in COUNTS:
            raise ValueError(f"budget={self.count!r} is not a unit; choose one of {', '.join(COUNTS)}")
        check_keep(self.steps, self.keep)

    @cached_property
    def sized_step(self) -> int | None:
        """The number of the step that the budget sizes."""
        return next((number for number, step in enumerate(self.steps) if step.sized_by_budget), None)

    @cached_property
    def chooser(self) -> Callable[..., dict[str, int]]:
        """The allocation: the one asked for, what the paper of the sized method uses, or ``greedy``."""
        of_paper = self.steps[self.sized_step].card.allocate if self.sized_step is not None else None
        return self.allocate or of_paper or greedy

    @property
    def weighs(self) -> bool:
        """True if items are weighed by how much the output changes when each alone is cut."""
        return self.importance if self.importance is not None else self.text is not None and self.chooser is greedy

    @property
    def reads_inputs(self) -> bool:
        """True if a step reads what the layers are given."""
        return any(step.card.needs for step in self.steps)

    @property
    def reads_text(self) -> bool:
        """True if text is needed, for statistics or to weigh the items under a budget."""
        compares = self.chooser is greedy or bool(layers_read_by(self.chooser))
        return self.reads_inputs or (self.sized_step is not None and compares)

    @property
    def takes_experts(self) -> bool:
        """True if experts in one tensor are chosen among: each is a layer where that costs no run of the model.

        Where inputs are read, or each layer's importance is measured, they are so where a pattern names them.
        """
        select = self.select
        patterns = [] if callable(select) else [select] if isinstance(select, str) else list(select or ())
        named = any("expert" in pattern for pattern in patterns)
        return named or not (self.reads_inputs or (self.weighs and self.sized_step is not None))

    @property
    def takes_groups(self) -> bool:
        """True if convolutions in groups may be chosen: every step quantises."""
        return all(step.kind == "quantize" for step in self.steps)
