"""The plan of a compression, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from polyad.allocate import Curve
from polyad.allocate.curve import WHOLE
from polyad.compress.recipe import SIZE, Step
from polyad.evaluation.records import CurveRecord, PlanRecord
from polyad.statistics import Moments


@dataclass(frozen=True, eq=False)
class Plan:
    """Sizes for every layer or block, by step of the recipe, with what led to them. ``stats`` stays in memory."""

    steps: tuple[Step, ...]
    selected: tuple[str, ...]
    sizes: tuple[dict[str, int], ...]
    keep: float | None
    count: str
    curves: Mapping[str, Curve] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    stats: Mapping[str, Moments] = field(default_factory=dict)
    seed: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    """Layers that are left whole, by path, each with the reason."""
    split: tuple[str, ...] = ()
    """Modules whose experts, in one tensor, become a layer each."""
    coverage: str = ""
    """The line that says how many layers were chosen, of what share of the bytes, and what was left and why."""

    def to_json(self) -> PlanRecord:
        """The plan without its statistics; curves are thinned to at most 33 choices."""
        return {
            "recipe": [step.to_json() for step in self.steps],
            "keep": self.keep, "budget": self.count, "seed": self.seed, "calibration": dict(self.texts),
            "sizes": [dict(sizes) for sizes in self.sizes],
            "importance": dict(self.importance),
            "curves": {name: _thin(curve) for name, curve in self.curves.items()},
            "seconds": dict(self.seconds), "left": dict(self.left), "coverage": self.coverage,
        }  # fmt: skip

    def __repr__(self) -> str:
        """The recipe, the budget and the smallest and largest size of each step, in a few lines."""
        budget = "sizes as given" if self.keep is None else f"keep {self.keep:g} of the {self.count}"
        lines = [f"Plan({len(self.selected)} layers, {budget}, seed {self.seed})"]
        lines += [
            f"  {step.card.name}: {_extent(step, sizes)}" for step, sizes in zip(self.steps, self.sizes, strict=True)
        ]
        lines += [f"  left: {path}, {reason}" for path, reason in list(self.left.items())[:3]]
        lines += [f"  and {len(self.left) - 3} more layers left"] if len(self.left) > 3 else []
        return "\n".join(lines)


def _extent(step: Step, sizes: Mapping[str, int]) -> str:
    """The smallest and largest size of a step, and how many items it leaves whole."""
    cut, name = [size for size in sizes.values() if size != WHOLE], SIZE.get(step.kind, "size")
    if not cut:
        return f"all {len(sizes)} items whole" if sizes else "no sizes"
    sized = f"{name} {min(cut)}" if min(cut) == max(cut) else f"{name} {min(cut)} to {max(cut)}"
    whole = f", {len(sizes) - len(cut)} whole" if len(sizes) > len(cut) else ""
    return f"{sized} on {len(cut)} items{whole}"


def _thin(curve: Curve) -> CurveRecord:
    at = np.unique(np.linspace(0, len(curve.sizes) - 1, min(33, len(curve.sizes))).round().astype(int))
    return {"sizes": curve.sizes[at].tolist(), "costs": curve.costs[at].tolist(), "errors": curve.errors[at].tolist()}
