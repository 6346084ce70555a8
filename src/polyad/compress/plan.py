"""Plans of the sizes that fit a model into a budget, made before the model is changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Generator, nn

from polyad.allocate import Curve, greedy
from polyad.compress.budget import Budget, name_stage, relative_errors
from polyad.compress.costs import Prices
from polyad.compress.draft import Draft
from polyad.compress.importance import item_importance
from polyad.compress.influence import layer_needs, layers_read_by, with_influence
from polyad.compress.item import Item
from polyad.compress.items import items
from polyad.compress.recipe import Recipe, Step, check_budget, steps
from polyad.compress.statistics_store import StatisticsStore, gather_statistics
from polyad.data.calibration import calibration
from polyad.evaluation.records import CurveRecord, PlanRecord
from polyad.models.compressible import compressible
from polyad.models.loading import check_numbers
from polyad.models.replacement import Replacement, merge_replacements, modules
from polyad.models.surgery import Which, replace
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

    def to_json(self) -> PlanRecord:
        """The plan without its statistics; curves are thinned to at most 33 choices."""
        return {
            "recipe": [step.to_json() for step in self.steps],
            "keep": self.keep, "budget": self.count, "seed": self.seed, "calibration": dict(self.texts),
            "sizes": [dict(sizes) for sizes in self.sizes],
            "importance": dict(self.importance),
            "curves": {name: _thin(curve) for name, curve in self.curves.items()},
            "seconds": dict(self.seconds),
        }  # fmt: skip


def plan(
    model: Any,
    recipe: Recipe,
    *,
    keep: float | None = None,
    budget: str = "parameters",
    calibrate: Any = None,
    select: Which | None = None,
    allocate: Callable[..., dict[str, int]] | None = None,
    importance: bool | None = None,
    avoid_slow: bool = False,
    seed: int = 0,
    callback: Callable[..., Any] | None = None,
    memory: StatisticsStore | None = None,
) -> Plan:
    """Decide how small each layer or block becomes under a recipe, so that ``keep`` of the selected modules stays.

    ``recipe`` is a method's function, a partial of one or a list of these; ``budget`` says what ``keep`` counts:
    "parameters", "bytes" (floats as bfloat16) or "flops" (a token's, with the output head). ``calibrate`` is a
    text's name or path, several of these, a Calibration, or a tensor (count, ...) of what the model takes, such as
    pictures. ``allocate`` defaults to what the method's paper uses, and else to ``greedy``. With ``importance`` (the
    default for ``greedy`` where there is text: the others do not compare errors of items) errors are weighed by how
    much the model's output changes when an item alone is cut.
    ``avoid_slow`` leaves out ranks at which two factors are slower than the dense layer, measured here and now.
    ``memory`` keeps finished statistics, so that a killed run can go on. Nothing is changed in the model. Raises
    where the budget cannot be met, naming the nearest that can.
    """
    parts = steps(recipe)
    targets = compressible(model, select, grouped=all(step.kind == "quantize" for step in parts))
    check_budget(parts, keep)
    sized = next((number for number, step in enumerate(parts) if step.sized_by_budget), None)
    prices = Prices(budget, parts[sized + 1 :] if sized is not None else ())
    limit = Budget(model, targets, keep or 0.0, budget) if sized is not None else None
    chooser = allocate or (parts[sized].card.allocate if sized is not None else None) or greedy
    if importance and calibrate is None:
        raise ValueError("importance is measured on text; give calibrate='stdlib' or a file")
    check_numbers(model)
    text = calibration(model, calibrate) if calibrate is not None else None
    weigh = importance if importance is not None else text is not None and chooser is greedy
    clock = time.perf_counter()
    undo = replace(model, modules(model, rescaled_weights(model, parts, seed)))
    try:
        work = [items(model, step, targets) for step in parts]
        sizes = [{item.name: step.size for item in its} if step.size is not None else {}
                 for step, its in zip(parts, work, strict=True)]  # fmt: skip
        needs = _join_needs(work, layer_needs(model, chooser) if sized is not None else {})
        stats = gather_statistics(model, needs, text, memory, name_stage(callback, "statistics"))
        seconds = {"statistics": time.perf_counter() - clock}
        curves: dict[str, Curve] = {}
        weights: dict[str, float] = {}
        if sized is not None and limit is not None:
            curves = _curves(model, work[sized], stats, prices, avoid_slow, name_stage(callback, "curves"))
            allowed = limit.left_for(parts[sized], work[sized], curves, prices)
            if weigh and text is not None:
                weights = item_importance(model, work[sized], curves, stats, text, name_stage(callback, "importance"))
            scaled = {n: curve.weigh(weights.get(n, 1.0)) for n, curve in relative_errors(curves).items()}
            sizes[sized] = with_influence(chooser, model, scaled, stats)(scaled, allowed)
    finally:
        undo()
    seconds["all"] = time.perf_counter() - clock
    texts = text.digests if text is not None else {}
    return Plan(parts, tuple(targets), tuple(sizes), keep, budget, curves, weights, texts, stats, seed, seconds)


def reads_text(parts: tuple[Step, ...], allocate: Callable[..., Any] | None = None) -> bool:
    """True if a recipe needs calibration text, for its statistics or to weigh the layers under a budget."""
    choosers = [allocate or step.card.allocate or greedy for step in parts if step.sized_by_budget]
    weighs = any(chooser is greedy or layers_read_by(chooser) for chooser in choosers)
    return weighs or any(step.card.needs for step in parts)


def rescaled_weights(model: nn.Module, parts: tuple[Step, ...], seed: int) -> Replacement:
    """The weights after the recipe's rescalings; drawn from the seed alone, so always the same."""
    return merge_replacements(
        step.card.function(model, generator=Generator().manual_seed(seed), **step.options)
        for step in parts
        if step.kind == "rescale"
    )


def _join_needs(work: list[list[Item]], layers: Mapping[str, set[str]]) -> dict[str, set[str]]:
    needs = {path: set(names) for path, names in layers.items()}
    for item in (item for its in work for item in its):
        for path, names in item.needs().items():
            needs.setdefault(path, set()).update(names)
    return needs


def _curves(
    model: nn.Module, work: list[Item], stats: Any, prices: Prices, avoid_slow: bool, report: Callable[..., Any]
) -> dict[str, Curve]:
    curves: dict[str, Curve] = {}
    draft = Draft(model)
    for number, item in enumerate(work, 1):
        curve = item.curve(draft, stats, prices)
        curves[item.name] = item.without_slow(curve, draft) if avoid_slow else curve
        report(number, len(work), {})
    return curves


def _thin(curve: Curve) -> CurveRecord:
    at = np.unique(np.linspace(0, len(curve.sizes) - 1, min(33, len(curve.sizes))).round().astype(int))
    return {"sizes": curve.sizes[at].tolist(), "costs": curve.costs[at].tolist(), "errors": curve.errors[at].tolist()}
