"""The main job in one call: load, decide, replace, save, measure."""

from __future__ import annotations

import json
import time
from pathlib import Path

from polyad._callback import Callback
from polyad._model_card import read_manifest, write_card
from polyad._unfinished import Work, unfinished
from polyad.compress.asked import Asked, Request
from polyad.compress.compression import Compression
from polyad.compress.recipe import Recipe, steps
from polyad.compress.result import Compressed, measure_result
from polyad.compress.statistics_store import StatisticsStore, configuration_of
from polyad.data.calibration import check_predicts, evaluation
from polyad.evaluation.figure_rows import figure_rows
from polyad.evaluation.measure import Measure, judge_beside
from polyad.evaluation.records import CompressionRecord
from polyad.models.folder import save
from polyad.models.loading import load
from polyad.models.shards import folder_bytes, round_to
from polyad.models.source import base_of, origin


def compress_model(
    request: Request, work: Path, callback: Callback | None = None, *, measure: Measure | None = None
) -> Compressed:
    """Load a model and apply a recipe to it, its floats rounded to what they are stored in.

    Statistics are kept in the folder ``work`` and found there again: by the next point of a comparison, or by the
    same command after a kill. ``measure`` is taken of the model before it is changed.
    """
    clock, asked, terms = time.perf_counter(), request.asked, request.terms()
    if callback is not None:
        callback(0, None, {"stage": f"loading {request.name}"})
    model = load(request.name, dtype=asked.dtype, device=asked.device)
    base = {"name": origin(model).name, "sha256": base_of(origin(model).folder)}
    check_predicts(model)
    texts = evaluation(model, asked.evaluate, count=asked.windows)  # now, so that a bad text costs no work
    judge = None if measure is None else judge_beside(measure, model)
    before = [step.to_json() for step in request.recipe if step.kind == "rescale"]
    identity = [request.name, base["sha256"], asked.seed, str(asked.dtype), before]
    store = StatisticsStore(work, identity, configuration_of(model))
    with Compression(model, terms, callback=callback) as compression:
        plan = compression.decide(store)
        middle = time.perf_counter()
        compression.replace(plan)
    round_to(model, asked.store)
    seconds = {**plan.seconds, "plan": middle - clock, "apply": time.perf_counter() - middle}
    return Compressed(model, plan, texts, base, seconds, judge)


def compress_to_folder(
    name: str,
    recipe: Recipe,
    folder: Path,
    asked: Asked,
    *,
    keep: float | None = None,
    callback: Callback | None = None,
) -> CompressionRecord:
    """Compress the model called ``name``, save it to ``folder`` and measure it beside the original.

    The figures are those of the saved files. A run that was killed goes on where its statistics stood.
    """
    request = Request(name, steps(recipe), keep, asked)
    request.check()
    json.dumps(request.shape)  # now, since the folder will say it
    with unfinished(folder, request.to_json()) as work:
        return write_compressed(request, work, callback)


def write_compressed(
    request: Request,
    work: Work,
    callback: Callback | None = None,
    *,
    measure: Measure | None = None,
    command: str | None = None,
) -> CompressionRecord:
    """Compress, save and measure, for a caller with more to do before the run is finished.

    ``command`` is what the folder's card says that it was made by.
    """
    asked = request.asked
    compressed = compress_model(request, work.folder, callback, measure=measure)
    source = origin(compressed.model)
    work.set_aside()
    save(
        compressed.model, work.target, tokenizer=source.tokenizer, recipe=request.shape, base=compressed.base,
        seed=asked.seed, dtype=asked.store,
    )  # fmt: skip
    work.bring_back()
    original = load(request.name, dtype=asked.dtype, device=asked.device)
    folders = (work.target, source.folder or request.name) if asked.alternations else (None, None)
    record = measure_result(compressed, original, asked, folders, callback)
    record["compressed"]["file_bytes"] = folder_bytes(work.target)
    heads, rows = figure_rows(record)
    write_card(work.target, read_manifest(work.target), figures=[heads, *rows], command=command)
    return {**record, "model": request.name, "base": compressed.base, "folder": str(work.target)}
