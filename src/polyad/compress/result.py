"""The record of one result: what was measured, of which layers, with what."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polyad._callback import Callback
from polyad._versions import NEWEST
from polyad.compress.asked import Asked
from polyad.compress.plan_record import Plan
from polyad.evaluation.clock import relative_times
from polyad.evaluation.evaluate import measured_pair
from polyad.evaluation.measure import Judge
from polyad.evaluation.records import CompressionRecord, LayerRecord
from polyad.evaluation.samples import continuations, samples
from polyad.layers import Factors
from polyad.layers.kernels import prepare_layers
from polyad.models.experts import layer_at
from polyad.models.layer_matrices import stored_shape
from polyad.models.loading import origin


@dataclass(frozen=True)
class Compressed:
    """A compressed model, its plan, the windows to measure it on, its base and the seconds that were spent.

    ``judge`` is the user's own measure, beside the original's.
    """

    model: Any
    plan: Plan
    texts: Mapping[str, Tensor]
    base: Mapping[str, Any]
    seconds: Mapping[str, float]
    judge: Judge | None = None


def measure_result(
    compressed: Compressed, original: Any, asked: Asked, folders: Any, callback: Callback | None
) -> CompressionRecord:
    """The record of one result, as data: what the command prints and the report draws."""
    model, planned = compressed.model, compressed.plan
    if asked.alternations:
        prepare_layers(model)  # timed as whoever loads it has it
    after, before, agreement = measured_pair(
        model, original, compressed.texts, planned.selected, width=asked.store.itemsize,
        alternations=asked.alternations, folders=folders, callback=callback,
    )  # fmt: skip
    times = relative_times(model, original, planned.selected, callback) if asked.alternations else {}
    record: CompressionRecord = {
        "version": NEWEST["record"], "title": result_title(planned, origin(original).name),
        "original": before.to_json(), "compressed": after.to_json(),
        "agreement": {"kl": agreement.kl, "top1": agreement.top1},
        "plan": planned.to_json(), "layers": layers(model, original, planned, times), "seed": asked.seed,
        "store": str(asked.store).removeprefix("torch."), "versions": versions(),
        "seconds": dict(compressed.seconds),
    }  # fmt: skip
    said = [continuations(one, compressed.texts) for one in (original, model)]
    record["samples"] = samples(origin(model).tokenizer, compressed.texts, *said)
    if compressed.judge is not None:
        record["measure"] = compressed.judge(model).to_json()
    return record


def result_title(planned: Plan, name: str) -> str:
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
            "path": path, "shape": stored_shape(model.get_submodule(path)), "parameters": _count(format),
            "whole": _count(_format_at(original, path)), "kind": type(format).__name__,
            "time": {str(rows): value for rows, value in times[path].items()} if path in times else None,
        })  # fmt: skip
    return records


def _format_at(model: nn.Module, path: str) -> Any:
    module: Any = layer_at(model, path)
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
