"""Several methods at equal budgets, side by side."""

from __future__ import annotations

import math
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from polyad._callback import Callback
from polyad._versions import NEWEST
from polyad.compress.asked import Asked, Request
from polyad.compress.recipe import Recipe, steps
from polyad.compress.result import measure_result
from polyad.compress.run import compress_model
from polyad.evaluation.measure import Judge, Measure, as_measure, judge_beside
from polyad.evaluation.records import CompressionRecord, Point, is_measured
from polyad.models.loading import load


def compare(
    name: str,
    methods: Mapping[str, Recipe],
    keeps: Iterable[float],
    asked: Asked | None = None,
    *,
    measure: Measure | str | Callable[[Any, Any], Any] | None = None,
    larger: bool = True,
    callback: Callback | None = None,
) -> list[Point]:
    """Every method at every budget on the model called ``name``, measured on the same windows.

    ``methods`` maps a label to a recipe; one whose sizes are all given runs once, whatever ``keeps`` says. A point
    that fails stays in the list with its ``error``. Each point says whether it is on the ``pareto`` front: none of
    the others has both a lower geometric mean of perplexity ratios and fewer bytes. With ``measure``, a function of
    (model, tokenizer) of which more is better if ``larger``, it takes the place of perplexity on the front.
    """
    asked = asked or Asked()
    original = load(name, dtype=asked.dtype, device=asked.device)
    judge = None if measure is None else judge_beside(as_measure(measure, larger=larger), original)
    work = Path(tempfile.mkdtemp(prefix="polyad-compare-"))
    points: list[Point] = []
    try:
        requests = [(label, request) for label, recipe in methods.items()
                    for request in _requests(name, recipe, keeps, asked)]  # fmt: skip
        for number, (label, request) in enumerate(requests, 1):
            numbered = _number_stages(callback, f"point {number} of {len(requests)}")
            points.append(_point(label, request, work, original, judge, numbered))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    mark_front(points)
    return points


def _number_stages(callback: Callback | None, point: str) -> Callback:
    """A callback that says before each stage which point it is of."""

    def report(step: int, total: int | None, values: Mapping[str, Any]) -> None:
        if callback is not None:
            callback(step, total, {**values, "stage": f"{point}, {values.get('stage', 'working')}"})

    return report


def _requests(name: str, recipe: Recipe, keeps: Iterable[float], asked: Asked) -> list[Request]:
    """A run at each share; one alone where all sizes are given."""
    sized = any(step.sized_by_budget for step in steps(recipe))
    return [Request(name, steps(recipe), keep, asked) for keep in (keeps if sized else [None])]


def _point(
    label: str, request: Request, work: Path, original: Any, judge: Judge | None, callback: Callback | None
) -> Point:
    keep = request.keep
    try:
        compressed = compress_model(request, work, callback)
        record = measure_result(compressed, original, request.asked, (None, None), callback)
        if judge is not None:
            record["measure"] = judge(compressed.model).to_json()
        return {**record, "method": label, "keep": keep, "model": request.name, "error": None}
    except (ValueError, TypeError, RuntimeError, MemoryError) as error:
        where = traceback.format_exc(limit=-1).strip().splitlines()[-1]
        return {"version": NEWEST["record"], "method": label, "keep": keep, "error": str(error), "where": where}


def mean_ratio(point: CompressionRecord) -> float:
    """The geometric mean, over texts, of a point's perplexity relative to the original's."""
    after, before = point["compressed"]["perplexity"], point["original"]["perplexity"]
    return math.exp(sum(math.log(after[t] / before[t]) for t in after) / len(after))


def loss_of(point: CompressionRecord) -> float:
    """The quantity that the front minimises beside bytes: the user's own measure, turned so, or ``mean_ratio``."""
    own_measure = point.get("measure")
    if own_measure is None:
        return mean_ratio(point)
    return -own_measure["value"] if own_measure["larger"] else own_measure["value"]


def mark_front(points: list[Point]) -> None:
    """Set ``ratio`` and ``pareto`` on every point that did not fail."""
    good = [(point, loss_of(point), point["compressed"]["bytes"]["total"]) for point in points if is_measured(point)]
    for point, loss, size in good:
        point["ratio"] = mean_ratio(point)
        point["pareto"] = not any(a <= loss and b <= size and (a, b) != (loss, size) for _, a, b in good)
