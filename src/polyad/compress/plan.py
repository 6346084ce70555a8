"""What to do to a model so that it fits a budget, decided before anything is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Generator, nn

from polyad.allocate import Curve, greedy
from polyad.compress import costs
from polyad.compress.influence import informed, layer_needs, read_by
from polyad.compress.recipe import Recipe, Step, check_budget, steps
from polyad.compress.sizing import allowed_cost, blocks_within, item_curves, item_importance, named, quick, relative
from polyad.data.calibration import Calibration, calibration
from polyad.models.calibration.collect import Moments, collect, combined
from polyad.models.compressible import compressible
from polyad.models.loading import check_numbers
from polyad.models.replacement import Replacement, merged, modules
from polyad.models.surgery import Which, replace

PART = 16
"""Windows after which statistics are kept, where a memory is given: what a kill can cost."""


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

    def to_json(self) -> dict[str, Any]:
        """The plan without its statistics; curves are thinned to at most 33 choices."""
        return {
            "recipe": [step.to_json() for step in self.steps],
            "keep": self.keep, "budget": self.count, "seed": self.seed, "calibration": dict(self.texts),
            "sizes": [dict(sizes) for sizes in self.sizes],
            "importance": dict(self.importance),
            "curves": {name: _thinned(curve) for name, curve in self.curves.items()},
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
    memory: Any = None,
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
    found = steps(recipe)
    targets = compressible(model, select, grouped=all(step.kind == "quantize" for step in found))
    free = [step for step in found if step.sized_by_budget]
    check_budget(found, keep)
    if budget not in costs.COUNTS:
        raise ValueError(f"budget={budget!r} is not a unit; choose one of {', '.join(costs.COUNTS)}")
    check_numbers(model)
    text = calibration(model, calibrate) if calibrate is not None else None
    reference = rescaled(model, found, seed)
    undo = replace(model, modules(model, reference)) if reference.weights else lambda: None
    clock = time.perf_counter()
    seconds: dict[str, float] = {}
    try:
        asked = needs(model, found, targets)
        chooser = allocate or (free[0].card.allocate if free else None) or greedy
        asked |= layer_needs(model, chooser) if free else {}
        stats = _statistics(model, asked, text, memory, callback)
        seconds["statistics"] = time.perf_counter() - clock
        curves: dict[str, Curve] = {}
        weighed: dict[str, float] = {}
        chosen: dict[str, int] = {}
        if free:
            step = free[0]
            price = costs.prices(budget, tuple(s for s in found[found.index(step) + 1 :] if s.kind == "quantize"))
            curves = item_curves(model, step, targets, stats, budget, price, callback)
            curves = quick(curves, step, targets) if avoid_slow else curves
            use = importance if importance is not None else text is not None and chooser is greedy
            if use and text is None:
                raise ValueError("importance is measured on text; give calibrate='stdlib' or a file")
            if use and text is not None:
                weighed = item_importance(model, step, targets, curves, stats, text, callback)
            allowed = allowed_cost(model, step, targets, curves, keep or 0.0, budget, price)
            scaled = {name: curve.scaled(weighed.get(name, 1.0)) for name, curve in relative(curves).items()}
            chosen = informed(chooser, model, scaled, stats)(scaled, allowed)
    finally:
        undo()
    seconds["all"] = time.perf_counter() - clock
    sizes = tuple(chosen if step in free else _fixed(model, step, targets) for step in found)
    texts = text.digests if text is not None else {}
    return Plan(found, tuple(targets), sizes, keep, budget, curves, weighed, texts, stats, seed, seconds)


def reads_text(found: tuple[Step, ...], allocate: Callable[..., Any] | None = None) -> bool:
    """Whether a recipe needs calibration text: for its statistics, or to weigh what the budget decides."""
    choosers = [allocate or step.card.allocate or greedy for step in found if step.sized_by_budget]
    weighs = any(chooser is greedy or read_by(chooser) for chooser in choosers)
    return weighs or any(step.card.needs for step in found)


def rescaled(model: nn.Module, found: tuple[Step, ...], seed: int) -> Replacement:
    """What the recipe's rescalings make of the weights; drawn from the seed alone, so always the same."""
    made = []
    for step in found:
        if step.kind == "rescale":
            generator = Generator().manual_seed(seed)
            made.append(step.card.function(model, generator=generator, **step.options))
    return merged(made)


def needs(model: nn.Module, found: tuple[Step, ...], targets: Mapping[str, nn.Module]) -> dict[str, set[str]]:
    """The statistics that the recipe asks for, by module path."""
    asked: dict[str, set[str]] = {}
    for step in found:
        if step.kind == "group":
            for block in blocks_within(model, step, targets):
                for role, wanted in step.card.needs.items():
                    if role in block.roles:
                        asked.setdefault(block.roles[role], set()).update(wanted)
        else:
            wanted = set(step.card.needs.get("", ())) | ({"mean"} if step.options.get("centre") else set())
            for path in targets if wanted else ():
                asked.setdefault(path, set()).update(wanted)
    return asked


def _statistics(model: Any, asked: Any, text: Calibration | None, memory: Any, callback: Any) -> dict[str, Moments]:
    if not asked:
        return {}
    if text is None:
        raise ValueError("this recipe reads activations; give calibrate='stdlib', 'sotu' or a text file")
    stats: dict[str, Moments] = {}
    parts = text.windows.split(PART)
    report = named(callback, "statistics")
    for number, part in enumerate(parts):
        found = memory.recall(number, asked, text) if memory is not None else None
        if found is None:
            before = number * PART
            found = collect(
                model,
                asked,
                [w[None] for w in part],
                callback=lambda i, _n, v, b=before: report(b + i, len(text.windows), v),
            )
            if memory is not None:
                memory.keep(number, asked, text, found)
        stats = combined(stats, found) if stats else found
    return stats


def _fixed(model: Any, step: Step, targets: Any) -> dict[str, int]:
    if step.size is None:
        return {}
    if step.kind == "group":
        return {block.name: step.size for block in blocks_within(model, step, targets)}
    return dict.fromkeys(targets, step.size)


def _thinned(curve: Curve) -> dict[str, list[float]]:
    at = np.unique(np.linspace(0, len(curve.sizes) - 1, min(33, len(curve.sizes))).round().astype(int))
    return {"sizes": curve.sizes[at].tolist(), "costs": curve.costs[at].tolist(), "errors": curve.errors[at].tolist()}
