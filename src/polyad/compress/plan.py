"""Plans of the sizes that fit a model into a budget, made before the model is changed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Generator, nn

from polyad._types import check_type
from polyad.allocate import Curve, greedy
from polyad.compress.budget import Budget, name_stage, relative_errors
from polyad.compress.costs import Prices
from polyad.compress.coverage import coverage_line
from polyad.compress.draft import Draft, refuse_compressed
from polyad.compress.importance import item_importance
from polyad.compress.influence import layer_needs, layers_read_by, with_influence
from polyad.compress.item import Item
from polyad.compress.items import items
from polyad.compress.plan_record import Plan
from polyad.compress.recipe import Recipe, Step, check_budget, steps
from polyad.compress.statistics_store import StatisticsStore, gather_statistics
from polyad.data.calibration import calibration
from polyad.models.compressible import select_layers
from polyad.models.experts import split_experts
from polyad.models.loading import check_numbers
from polyad.models.replacement import Replacement, merge_replacements, modules
from polyad.models.surgery import Which, replace


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
    check_type("model", model, nn.Module, "give the model itself, as polyad.load returns it")
    parts = steps(recipe)
    chooser = _chooser(parts, allocate)
    weigh = importance if importance is not None else calibrate is not None and chooser is greedy
    splits = split_experts(model) if _takes_experts(select, parts, weigh) else {}
    undo = replace(model, splits)
    try:
        planned = _plan_layers(
            model,
            parts,
            keep,
            budget,
            calibrate,
            select,
            chooser,
            importance,
            weigh,
            avoid_slow,
            seed,
            callback,
            memory,
        )
    finally:
        undo()
    used = (path for path in splits if any(layer.startswith(f"{path}.") for layer in planned.selected))
    return dataclasses.replace(planned, split=tuple(used))


def _chooser(
    parts: tuple[Step, ...], allocate: Callable[..., dict[str, int]] | None
) -> Callable[..., dict[str, int]]:
    sized = next((step for step in parts if step.sized_by_budget), None)
    return allocate or (sized.card.allocate if sized is not None else None) or greedy


def _takes_experts(select: Which | None, parts: tuple[Step, ...], weigh: bool) -> bool:
    """True if experts in one tensor are chosen among: each is a layer where that costs no run of the model.

    Where inputs are read, or each layer's importance is measured, they are so where a pattern names them.
    """
    patterns = [] if callable(select) else [select] if isinstance(select, str) else list(select or ())
    named = any("expert" in pattern for pattern in patterns)
    measured = weigh and any(step.sized_by_budget for step in parts)
    return named or not (measured or any(step.card.needs for step in parts))


def _plan_layers(
    model: Any,
    parts: tuple[Step, ...],
    keep: float | None,
    budget: str,
    calibrate: Any,
    select: Which | None,
    chooser: Callable[..., dict[str, int]],
    importance: bool | None,
    weigh: bool,
    avoid_slow: bool,
    seed: int,
    callback: Callable[..., Any] | None,
    memory: StatisticsStore | None,
) -> Plan:
    reads = any(step.card.needs for step in parts)
    chosen = select_layers(model, select, grouped=all(step.kind == "quantize" for step in parts), reads_inputs=reads)
    targets = chosen.chosen
    for path, layer in targets.items():
        refuse_compressed(path, layer)
    check_budget(parts, keep)
    sized = next((number for number, step in enumerate(parts) if step.sized_by_budget), None)
    prices = Prices(budget, parts[sized + 1 :] if sized is not None else ())
    limit = Budget(model, targets, keep or 0.0, budget) if sized is not None else None
    if importance and calibrate is None:
        raise ValueError("importance is measured on text; give calibrate='stdlib' or a file")
    check_numbers(model)
    text = calibration(model, calibrate) if calibrate is not None else None
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
    return Plan(parts, tuple(targets), tuple(sizes), keep, budget, curves, weights, texts, stats, seed, seconds,
                chosen.left, coverage=coverage_line(model, targets, chosen.left))  # fmt: skip


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
