"""Plans of the sizes that fit a model into a budget, made before the model is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from polyad._callback import Callback
from polyad._types import check_type
from polyad.compress.asked import read_allocation
from polyad.compress.compression import Compression
from polyad.compress.plan_record import Plan
from polyad.compress.recipe import Recipe, steps
from polyad.compress.statistics_store import StatisticsStore
from polyad.compress.terms import Terms
from polyad.models.surgery import Which


def plan(
    model: Any,
    recipe: Recipe,
    *,
    keep: float | None = None,
    budget: str = "parameters",
    calibrate: Any = None,
    select: Which | None = None,
    allocate: Callable[..., dict[str, int]] | str | None = None,
    importance: bool | None = None,
    avoid_slow: bool = False,
    seed: int = 0,
    callback: Callback | None = None,
    memory: StatisticsStore | None = None,
) -> Plan:
    """Decide how small each layer or block becomes under a recipe, so that ``keep`` of the selected modules stays.

    ``recipe`` is a method's function, a partial of one or a list of these; ``budget`` says what ``keep`` counts:
    "parameters", "bytes" (floats as bfloat16) or "flops" (a token's, with the output head). ``calibrate`` is a
    text's name or path, several of these, a Calibration, or a tensor (count, ...) of what the model takes, such as
    pictures. ``allocate``, a function or its name with arguments, defaults to what the method's
    paper uses, and else to ``greedy``. With ``importance`` (the
    default for ``greedy`` where there is text: the others do not compare errors of items) errors are weighed by how
    much the model's output changes when an item alone is cut.
    ``avoid_slow`` leaves out ranks at which two factors are slower than the dense layer, measured here and now.
    ``memory`` keeps finished statistics, so that a killed run can go on. Nothing is changed in the model. Raises
    where the budget cannot be met, naming the nearest that can.
    """
    check_type("model", model, nn.Module, "give the model itself, as polyad.load returns it")
    allocate = read_allocation(allocate) if isinstance(allocate, str) else allocate
    terms = Terms(steps(recipe), keep, budget, calibrate, select, allocate, importance, avoid_slow, seed)
    with Compression(model, terms, callback=callback) as compression:
        return compression.decide(memory)
