"""``polyad compare``: several methods at equal budgets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from polyad.cli import options
from polyad.cli.measure_table import measure_cell, measure_title, verdict_words
from polyad.cli.output import command, complain, emit, number, out, progress, share, table

if TYPE_CHECKING:
    from polyad.evaluation.records import Point


def compare(
    model: options.Model,
    methods: Annotated[str, typer.Option(help="methods as compress takes them, joined by semicolons")],
    keep: Annotated[str, typer.Option(help="shares to keep, joined by commas")] = "0.9,0.8,0.7",
    calibrate: options.Texts = None,
    text: options.Texts = None,
    budget: options.Budget = "parameters",
    store: Annotated[str, typer.Option(help="dtype in which floating-point weights would be saved")] = "bfloat16",
    calibration_windows: options.CalibrationWindows = 64,
    measure: options.Measure = None,
    larger: options.Larger = True,
    windows: options.Windows = None,
    alternations: Annotated[int, typer.Option(min=0, help="turns in which speed is measured; none by default")] = 0,
    thorough: options.Thorough = False,
    avoid_slow: options.AvoidSlow = False,
    report: Annotated[Path | None, typer.Option(help="an HTML file to write")] = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Run every method at every budget on MODEL and say which points no other beats in quality and bytes."""
    from polyad.compress import compare as comparison
    from polyad.compress.recipe import steps
    from polyad.compress.run import Asked
    from polyad.evaluation.records import failure

    options.check_report(report)
    recipes = {part.strip(): steps(part) for part in methods.split(";") if part.strip()}
    if not recipes:
        raise ValueError(f"--methods {methods!r} names no method; write --methods 'modegpt;lord'")
    keeps = shares(keep)
    windows = options.effort(windows, usual=6, full=24, thorough=thorough)
    options.fix_seed(seed)
    chosen = options.measure_of(measure, larger=larger)
    asked = Asked(
        tuple(options.texts_of(calibrate)), tuple(options.texts_of(text)), budget, None, None,
        options.dtype_of(store), calibration_windows, windows, alternations, device, options.dtype_of(dtype), seed,
        avoid_slow,
    )  # fmt: skip
    with progress() as callback:
        points = comparison(model, recipes, keeps, asked, measure=chosen, callback=callback)
    for point in points:
        point["command"] = command()
    if report is not None:
        from polyad.report import write

        write(report, points)
    if json:
        emit(points)
    else:
        show(points)
        if report is not None:
            out.print(f"report in {report}")
    failed = [reason for point in points if (reason := failure(point)) is not None]
    if len(failed) == len(points):
        complain(f"every point failed, the first with: {failed[0]}")
        raise typer.Exit(1)


def shares(text: str) -> list[float]:
    """Shares joined by commas."""
    try:
        parts = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        parts = []
    if not parts:
        raise ValueError(f"--keep {text!r} is not a list of shares; write --keep 0.9,0.8")
    from polyad import _check

    return [_check.share("--keep", share) for share in parts]


def show(points: list[Point]) -> None:
    """The table of a comparison; failed points stay in it with their reason."""
    from polyad.evaluation.records import failure, is_measured

    measured = next((p["measure"] for p in points if is_measured(p) and "measure" in p), None)
    texts = next((list(p["compressed"]["perplexity"]) for p in points if is_measured(p)), [])
    rows: list[list[str]] = []
    for point in points:
        keep = point.get("keep")
        head = [point.get("method", ""), number(keep, 2) if keep else "–"]
        if not is_measured(point):
            holes = ["–"] * (len(texts) + bool(measured) + 3)
            rows.append([*head, *holes, f"failed: {failure(point)}"])
            continue
        after, before = point["compressed"], point["original"]
        ratios = [f"{after['perplexity'][t] / before['perplexity'][t]:.3f} x" for t in texts]
        ratios += [measure_cell(point["measure"])] if "measure" in point else []
        sizes = [share(after[c]["total"], before[c]["total"]) for c in ("parameters", "bytes")]
        speed = share(after["decode_tokens_per_second"], before["decode_tokens_per_second"])
        rows.append([*head, *ratios, *sizes, speed, "front" if point.get("pareto") else ""])
    named = [measured["name"]] if measured else []
    columns = ["method", "keep", *(f"perplexity, {t}" for t in texts), *named, "parameters", "bytes", "decoding", ""]
    title = "whole model, relative to the original (its floats in two bytes)"
    table(title + (measure_title(measured) if measured else ""), columns, rows)
    for point in points:
        if is_measured(point) and "measure" in point and point["measure"]["verdict"] is not None:
            keep = "" if point.get("keep") is None else f" at {point.get('keep')}"
            said = verdict_words(point["measure"])
            out.print(f"{point.get('method', '')}{keep}: {point['measure']['name']} {said}", soft_wrap=True)
