"""Write a model as an ONNX graph, run it with onnxruntime, and put it in its place where both agree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from polyad.export.copies import copy_in_dtype
from polyad.export.onnx.codes import EXACT, ROUNDED
from polyad.export.onnx.compare import Difference, cases_of, compare_graph
from polyad.export.onnx.graph import ExportedGraph, graph_of
from polyad.export.onnx.twin import codes_of, traceable_twin
from polyad.export.result import ExportResult
from polyad.interop.onnx import (
    MODEL,
    Session,
    count_products,
    graph_bytes,
    narrow_numbers,
    require_packages,
    set_accuracy_level,
    trace_graph,
    write_graph,
)
from polyad.models.companions import write_companions
from polyad.models.folder import staged_folder
from polyad.models.shards import check_range

TOLERANCE = {torch.float32: 1e-3, torch.float16: 3e-2}
"""The relative difference by which a graph's outputs may depart from the model's, by dtype."""
AGREE, SAME = 0.03, 0.95
"""The relative difference, and the share of equal top entries, within which rounded rows are taken."""
MAX_FILE = 1_900_000_000
"""The most bytes in one file: a protocol buffer holds 2 GB."""
DTYPES = {"float32": torch.float32, "float16": torch.float16}


def write_onnx(
    model: nn.Module,
    out: Path,
    *,
    inputs: Any = None,
    dtype: str = "float32",
    accuracy_level: int | None = None,
    max_file_size: int = MAX_FILE,
    unchecked: bool = False,
) -> ExportResult:
    """Write a model to a new folder: ``model.onnx``, its configuration and its tokenizer.

    ``inputs`` are examples for a module that is no model of transformers: a tensor, a tuple, or tensors by name,
    the first dimension of each the batch. ``dtype`` is that of the computation, float32 or float16. Numbers of more
    than ``max_file_size`` bytes go into ``model.onnx_data``. ``accuracy_level`` is that of products with codes: 1
    leaves the other factor as it is, 4 rounds it to 8 bits, which is several times faster; by default 4 where the
    outputs agree with the model's.
    """
    _check_options(dtype, accuracy_level, max_file_size)
    require_packages()
    number = DTYPES[dtype]
    check_range(dict(model.named_parameters()), number)
    reference = copy_in_dtype(model, number)
    graph = graph_of(reference, inputs)
    twin = traceable_twin(model, number)
    traced = _trace(graph.wrap(twin), graph, model)
    narrow_numbers(traced)
    with staged_folder(out, expect=graph_bytes(traced)) as partial:
        write_companions(model, partial)
        config = getattr(model, "config", None)
        if config is not None:
            (partial / "config.json").write_text(json.dumps(config.to_dict(), indent=2, default=str) + "\n")
        checked: dict[str, Any] = {}
        levels = (accuracy_level,) if accuracy_level else (EXACT, ROUNDED)
        if set_accuracy_level(traced, levels[0]) == 0:
            levels = levels[:1]
        write_graph(traced, partial, max_file_size)
        if not unchecked:
            checked = _check(traced, partial, reference, graph, number, levels, max_file_size)
    files = [path for path in out.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files if path.name.startswith(MODEL))
    return ExportResult(out, "onnx", size, checked, (*graph.notes, *_notes(traced, twin, checked, levels)))


def _check_options(dtype: str, level: int | None, limit: int) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is none that the graph can compute in; choose float32 or float16")
    if level not in (None, EXACT, ROUNDED):
        raise ValueError(f"accuracy_level={level!r}; choose 1 (rows as they are) or 4 (rows rounded to 8 bits)")
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit <= MAX_FILE:
        raise ValueError(f"max_file_size={limit!r} is not a number of bytes from 1 to {MAX_FILE:,}")


def _trace(module: nn.Module, graph: ExportedGraph, model: nn.Module) -> Any:
    try:
        return trace_graph(module, graph.inputs, graph.axes, graph.outputs)
    except ValueError as error:
        raise ValueError(
            f"{type(model).__name__} cannot be written as an ONNX graph: torch's exporter says {error}"
        ) from None


def _check(
    traced: Any,
    folder: Path,
    reference: nn.Module,
    graph: ExportedGraph,
    dtype: torch.dtype,
    levels: tuple[int, ...],
    limit: int,
) -> dict[str, Any]:
    """Compare what was written with the model, level by level; what stays in the folder is the last that agrees."""
    cases = cases_of(reference, graph)
    first = compare_graph(Session(folder / MODEL), reference, graph, cases)
    _refuse_difference(first, TOLERANCE[dtype] if levels[0] == EXACT else AGREE)
    checked = {"engine": "onnxruntime", "cases": first.cases, "largest_relative_difference": first.worst}
    if len(levels) == 1:
        return checked
    set_accuracy_level(traced, ROUNDED)
    write_graph(traced, folder, limit)
    second = compare_graph(Session(folder / MODEL), reference, graph, cases)
    takes = second.worst <= AGREE and (second.top is None or second.top >= SAME)
    if not takes:
        set_accuracy_level(traced, EXACT)
        write_graph(traced, folder, limit)
    checked |= {"difference_with_rounded_rows": second.worst, "accuracy_level": ROUNDED if takes else EXACT}
    return checked | ({} if second.top is None else {"same_top_with_rounded_rows": second.top})


def _refuse_difference(difference: Difference, tolerance: float) -> None:
    if not difference.worst <= tolerance:
        raise ValueError(
            "the graph was run with onnxruntime and does not say what the model says: "
            f"{difference.output} differs by {difference.worst:.2g} of its size ({difference.case}), and "
            f"{tolerance:.0e} is allowed; nothing was written"
        )


def _notes(traced: Any, twin: nn.Module, checked: dict[str, Any], levels: tuple[int, ...]) -> list[str]:
    """Sentences on what became of quantised layers."""
    counts, codes = count_products(traced), len(codes_of(twin))
    said = [f"{n} matrices are in MatMulNBits of {bits} bits" for bits, n in counts.items()]
    others = codes - sum(counts.values())
    if others:
        said.append(
            f"{others} quantised tensors are held as codes, and read by row or restored when the file is loaded"
        )
    level = checked.get("accuracy_level", levels[0])
    if counts:
        rows = "rounded to 8 bits" if level == ROUNDED else "as they are"
        said.append(f"accuracy_level is {level}: rows are {rows}")
    if counts.get(8) and level == EXACT:
        said.append("at that level the engine restores matrices of 8 bits at every call, which is slower than floats")
    return said
