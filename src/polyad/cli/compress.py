"""``polyad compress``: make a model smaller, save it, and say what that cost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyad._unfinished import unfinished
from polyad.cli import options
from polyad.cli.measure_table import measure_table
from polyad.cli.output import command, emit, out, progress, shown, table

DEFAULT = "rtn:bits=8,group=32"
"""The recipe where none is chosen: about half the bytes, without any text to calibrate on."""

if TYPE_CHECKING:
    from polyad.evaluation.records import CompressionRecord


def compress(
    model: options.Model,
    method: Annotated[
        str | None,
        typer.Option(help=f"NAME or NAME:argument=value,…; steps of a recipe joined by +; by default {DEFAULT}"),
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="a folder to make; by default the model's name and -small, here")
    ] = None,
    keep: Annotated[float | None, typer.Option(help="the share to keep, such as 0.8")] = None,
    calibrate: options.Texts = None,
    text: options.Texts = None,
    budget: options.Budget = "parameters",
    select: Annotated[str | None, typer.Option(help="glob patterns of module paths, joined by commas")] = None,
    allocate: Annotated[
        str | None, typer.Option(help="an allocation, such as uniform or block_influence:temperature=0.2")
    ] = None,
    store: Annotated[str, typer.Option(help="dtype in which floating-point weights are saved")] = "bfloat16",
    calibration_windows: options.CalibrationWindows = 64,
    measure: options.Measure = None,
    larger: options.Larger = True,
    windows: options.Windows = None,
    alternations: options.Alternations = None,
    thorough: options.Thorough = False,
    avoid_slow: options.AvoidSlow = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="one width for all layers, so that plain transformers loads the result")
    ] = False,
    fit_for: Annotated[
        str | None, typer.Option("--for", help="stay within what a format holds, such as gguf: grids, groups, scales")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="an HTML file to write")] = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Make MODEL smaller by a method, save it to --out, and print quality, size and speed beside the original's."""
    from polyad.compress.asked import Asked, Request
    from polyad.compress.recipe import steps
    from polyad.compress.run import write_compressed
    from polyad.export import fit_recipe
    from polyad.models.loading_line import loading_line

    options.check_report(report)
    method = default_method(keep) if method is None else method
    out_folder = Path(f"{Path(model).expanduser().resolve().name}-small") if out_folder is None else out_folder
    shown.folder = out_folder
    windows = options.effort(windows, usual=6, full=24, thorough=thorough)
    alternations = options.effort(alternations, usual=5, full=15, thorough=thorough)
    shown.settled = {"method": method, "windows": windows, "alternations": alternations}
    recipe = steps(method) if fit_for is None else fit_recipe(method, fit_for)
    chosen = options.measure_of(measure, larger=larger)
    request = Request(model, recipe, keep, Asked(
        tuple(options.texts_of(calibrate)), tuple(options.texts_of(text)), budget,
        select.split(",") if select else None, allocate, options.dtype_of(store), calibration_windows, windows,
        alternations, device, options.dtype_of(dtype), seed, avoid_slow, plain,
    ))  # fmt: skip
    request.check()
    options.fix_seed(seed)
    clock = time.perf_counter()
    with unfinished(out_folder, request.to_json()) as work:
        with progress() as callback:
            record = write_compressed(request, work, callback, measure=chosen, command=command())
        record["command"] = command()
        record.setdefault("seconds", {})["command"] = time.perf_counter() - clock
        if report is not None:
            from polyad.report import write

            write(report, [record])
        if json:
            emit(record)
            return
        show(record)
        if "measure" in record:
            measure_table(record["measure"], str(out_folder))
        out.print(f"saved to {out_folder}" + (f", report in {report}" if report else ""))
        out.print(loading_line(out_folder), soft_wrap=True)


def default_method(keep: float | None) -> str:
    """The recipe where none was chosen, codes of eight bits; ValueError where a share to keep asks for another."""
    if keep is not None:
        raise ValueError(f"--keep {keep} needs a method that it sizes; write --method modegpt --keep {keep}")
    return DEFAULT


def show(record: CompressionRecord) -> None:
    """The table of one compression."""
    from polyad.evaluation.figure_rows import figure_rows
    from polyad.report.slow import slow_layers

    table(record["title"], *figure_rows(record))
    said = record["plan"].get("coverage")
    if said:
        out.print(said)
    said = slow_layers(record)
    if said is not None:
        out.print(said)
