"""The main job in one call: load, plan, apply, save, measure."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polyad._unfinished import Work, unfinished
from polyad._versions import NEWEST
from polyad.compress.apply import apply
from polyad.compress.plan import Plan, plan, reads_text
from polyad.compress.recipe import Recipe, read_allocation, steps
from polyad.compress.statistics_store import StatisticsStore, configuration_of
from polyad.data.calibration import CALIBRATION_WINDOWS, calibration, evaluation
from polyad.evaluation.clock import relative_times
from polyad.evaluation.evaluate import measured_pair
from polyad.evaluation.quality import check_predicts
from polyad.evaluation.records import CompressionRecord, LayerRecord
from polyad.layers import Factors
from polyad.models.folder import base_of, save
from polyad.models.loading import load, origin
from polyad.models.shards import nbytes


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
    if work is None:
        with unfinished(folder, run_of(name, recipe, asked, keep)) as work:
            return compress_to_folder(name, recipe, folder, asked, keep=keep, callback=callback, work=work)
    model, planned, _, texts, seconds = compress_model(name, recipe, keep, asked, work.folder, callback)
    source = origin(model)
    base = {"name": source.name, "sha256": base_of(source.folder)}
    shape = {"recipe": [s.to_json() for s in planned.steps], "keep": keep, "budget": asked.budget}
    work.set_aside()
    save(model, folder, tokenizer=source.tokenizer, recipe=shape, base=base, seed=asked.seed, dtype=asked.store)
    work.bring_back()
    original = load(name, dtype=asked.dtype, device=asked.device)
    folders = (folder, source.folder or name) if asked.alternations else (None, None)
    record = measure_result(model, original, planned, texts, asked, folders, callback)
    record["compressed"]["file_bytes"] = nbytes(folder)
    return {**record, "model": name, "base": base, "folder": str(folder), "seconds": seconds}


def measure_result(
    model: Any,
    original: Any,
    planned: Plan,
    texts: Mapping[str, Tensor],
    asked: Asked,
    folders: Any,
    callback: Callable[..., Any] | None,
) -> CompressionRecord:
    """The record of one result, as data: what the command prints and the report draws."""
    after, before, agreement = measured_pair(
        model, original, texts, planned.selected, width=asked.store.itemsize, alternations=asked.alternations,
        folders=folders, callback=callback,
    )  # fmt: skip
    times = relative_times(model, original, planned.selected, callback) if asked.alternations else {}
    return {
        "version": NEWEST["record"], "title": title(planned, origin(original).name),
        "original": before.to_json(), "compressed": after.to_json(),
        "agreement": {"kl": agreement.kl, "top1": agreement.top1},
        "plan": planned.to_json(), "layers": layers(model, original, planned, times), "seed": asked.seed,
        "store": str(asked.store).removeprefix("torch."), "versions": versions(),
    }  # fmt: skip


def round_to(model: nn.Module, dtype: torch.dtype) -> None:
    """Give every parameter the value that it has in ``dtype``, keeping its own dtype. Scales are no parameters."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype).to(parameter.dtype)


def title(planned: Plan, name: str) -> str:
    """The recipe and the share that was kept, in a line."""
    recipe = " + ".join(
        step.card.name + (":" + ",".join(f"{k}={v}" for k, v in step.arguments.items()) if step.arguments else "")
        for step in planned.steps
    )
    share = f", {100 * planned.keep:g} % of the selected {planned.count} kept" if planned.keep is not None else ""
    return f"{name}: {recipe}{share}"


def layers(
    model: nn.Module, original: nn.Module, planned: Plan, times: Mapping[str, Mapping[int, float]]
) -> list[LayerRecord]:
    """For every selected module its shape and format, its numbers, and ``whole``: those that it had before.

    ``time`` is its time over the original layer's, by rows; None where speed was not measured.
    """
    records: list[LayerRecord] = []
    for path in planned.selected:
        format = _format_at(model, path)
        records.append({
            "path": path, "shape": list(format.shape), "parameters": _count(format),
            "whole": _count(_format_at(original, path)), "kind": type(format).__name__,
            "time": {str(rows): value for rows, value in times[path].items()} if path in times else None,
        })  # fmt: skip
    return records


def _format_at(model: nn.Module, path: str) -> Any:
    module: Any = model.get_submodule(path)
    return module.weight() if isinstance(module.weight, Factors) else module.weight


def _count(weight: Any) -> int:
    return int(weight.numel() if isinstance(weight, torch.Tensor) else weight.parameters)


def versions() -> dict[str, str]:
    """Versions of the software, and the processor, that a result was computed with."""
    import transformers

    import polyad

    return {
        "polyad": polyad.__version__, "torch": torch.__version__, "transformers": transformers.__version__,
        "python": platform.python_version(), "processor": platform.processor() or platform.machine(),
    }  # fmt: skip
