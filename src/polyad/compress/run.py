"""The main job in one call: load, plan, apply, save, measure."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polyad._unfinished import Work, unfinished
from polyad.compress.apply import apply
from polyad.compress.asked import Asked
from polyad.compress.plan import Plan, plan, reads_text
from polyad.compress.recipe import Recipe, read_allocation, steps
from polyad.compress.result import measure_result
from polyad.compress.statistics_store import StatisticsStore, configuration_of
from polyad.data.calibration import calibration, evaluation
from polyad.evaluation.quality import check_predicts
from polyad.evaluation.records import CompressionRecord
from polyad.models.folder import base_of, save
from polyad.models.loading import load, origin
from polyad.models.shards import check_range, nbytes


def compress_model(
    name: str,
    recipe: Recipe,
    keep: float | None,
    asked: Asked,
    work: Path,
    callback: Callable[..., Any] | None = None,
) -> tuple[Any, Plan, StatisticsStore, Mapping[str, Tensor], dict[str, float]]:
    """Load the model called ``name`` and apply a recipe to it, its floats rounded to what they are stored in.

    Statistics are kept in the folder ``work`` and found there again: by the next point of a comparison, or by the
    same command after a kill.
    """
    clock = time.perf_counter()
    model = load(name, dtype=asked.dtype, device=asked.device)
    chosen = steps(recipe)
    check_predicts(model)
    texts = evaluation(model, asked.evaluate, count=asked.windows)  # now, so that a bad text costs no work
    before = [s.to_json() for s in chosen if s.kind == "rescale"]
    identity = [name, base_of(origin(model).folder), asked.seed, str(asked.dtype), before]
    memory = StatisticsStore(work, identity, configuration_of(model))
    allocate = read_allocation(asked.allocate) if asked.allocate else None
    reads = reads_text(chosen, allocate)
    text = calibration(model, asked.calibrate, count=asked.calibration_windows) if reads else None
    planned = plan(
        model, chosen, keep=keep, budget=asked.budget, select=asked.select, allocate=allocate, seed=asked.seed,
        avoid_slow=asked.avoid_slow, calibrate=text, callback=callback, memory=memory,
    )  # fmt: skip
    middle = time.perf_counter()
    apply(model, planned, callback=callback)
    round_to(model, asked.store)
    seconds = {**planned.seconds, "plan": middle - clock, "apply": time.perf_counter() - middle}
    return model, planned, memory, texts, seconds


def run_of(name: str, recipe: Recipe, asked: Asked, keep: float | None) -> dict[str, Any]:
    """The settings of a run as JSON: a run that was stopped goes on where all of them are the same."""
    return {"compress": name, "recipe": [s.to_json() for s in steps(recipe)], "keep": keep, **asdict(asked)}


def compress_to_folder(
    name: str,
    recipe: Recipe,
    folder: Path,
    asked: Asked,
    *,
    keep: float | None = None,
    callback: Callable[..., Any] | None = None,
    work: Work | None = None,
) -> CompressionRecord:
    """Compress the model called ``name``, save it to ``folder`` and measure it beside the original.

    The figures are those of the saved files. A run that was killed goes on where its statistics stood. A caller with
    more to do before the run is finished gives its ``work``.
    """
    recipe = steps(recipe)
    shape = {"recipe": [step.to_json() for step in recipe], "keep": keep, "budget": asked.budget}
    json.dumps(shape)  # now, since the folder will say it
    if work is None:
        with unfinished(folder, run_of(name, recipe, asked, keep)) as work:
            return compress_to_folder(name, recipe, folder, asked, keep=keep, callback=callback, work=work)
    model, planned, _, texts, seconds = compress_model(name, recipe, keep, asked, work.folder, callback)
    source = origin(model)
    base = {"name": source.name, "sha256": base_of(source.folder)}
    work.set_aside()
    save(model, folder, tokenizer=source.tokenizer, recipe=shape, base=base, seed=asked.seed, dtype=asked.store)
    work.bring_back()
    original = load(name, dtype=asked.dtype, device=asked.device)
    folders = (folder, source.folder or name) if asked.alternations else (None, None)
    record = measure_result(model, original, planned, texts, asked, folders, callback)
    record["compressed"]["file_bytes"] = nbytes(folder)
    return {**record, "model": name, "base": base, "folder": str(folder), "seconds": seconds}


def round_to(model: nn.Module, dtype: torch.dtype) -> None:
    """Give every parameter the value that it has in ``dtype``, keeping its own dtype. Scales are no parameters.

    Refused, with nothing changed, where one would become infinite.
    """
    check_range(dict(model.named_parameters()), dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype).to(parameter.dtype)
