"""``polyad decompose``: a file's tensor in every format, error against size, or by one method of the catalogue."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from polyad._unfinished import Work, remove_rest, unfinished, was_stopped
from polyad.cli import options
from polyad.cli.decompose_lines import print_head, print_point, record, verdict
from polyad.cli.decompose_one import decompose_one, method_of, place_of
from polyad.cli.output import command, emit, out

LIMIT = 60.0
"""Seconds that a format may take, unless --thorough is given."""


def decompose(
    file: Annotated[Path, typer.Argument(help="a .npy, .npz, .csv, .mat, .tns or .safetensors file, a picture, a "
                                         "film, or a folder of pictures of one size")],
    method: Annotated[str | None, typer.Option(help="one decomposition of the catalogue, NAME or "
                                               "NAME:argument=value,…; its factors are saved")] = None,
    rank: Annotated[str | None, typer.Option(help="the rank for --method, such as 20, or 20x10x5")] = None,
    format: Annotated[str | None, typer.Option(help="of matrix, tucker, tt, ring, tree, tubal, cp, joined by "
                                               "commas; by default all")] = None,
    tol: Annotated[str | None, typer.Option(help="relative errors, joined by commas; by default 0.3,0.1,0.03,0.01")]
    = None,
    budget: Annotated[int | None, typer.Option(min=1, help="leave out what takes more bytes than this")] = None,
    name: Annotated[str | None, typer.Option(help="which tensor of the file")] = None,
    modes: Annotated[str | None, typer.Option(help="names of the modes, such as subject,time,channel")] = None,
    missing: Annotated[str | None, typer.Option(help="entries that were not seen: nan, or the number that stands for "
                                                "them")] = None,
    out_file: Annotated[Path | None, typer.Option("--out", help="save the smallest within the smallest --tol, "
                                                  ".safetensors; with --method its factors, .npz")] = None,
    report: Annotated[Path | None, typer.Option(help="an HTML file to write")] = None,
    thorough: Annotated[bool, typer.Option("--thorough", help="also take what is foreseen to last over a minute")]
    = False,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:  # fmt: skip
    """Show what each format makes of the tensor in FILE, and save the smallest; or decompose it by --method."""
    from polyad.cli.decompose_tensor import tensor_of

    options.fix_seed(seed)
    options.check_report(report)
    if method is None and rank is not None:
        raise ValueError(f"--rank {rank} is for one method; name it too, such as --method cp_als")
    card, chosen = (None, {}) if method is None else method_of(method, rank, _single_tol(tol))
    if card is not None and (format is not None or budget is not None):
        raise ValueError("--format and --budget choose among formats, and --method names one; leave either out")
    place = None if card is None else place_of(file, card, chosen, out_file)
    if place is None:
        _check_file(out_file)
    one = tensor_of(file, name, modes, missing, dtype, device)
    if card is not None and place is not None:
        decompose_one(one.x, one.title, one.stored, card, chosen, place, mask=one.mask, modes=one.modes, seed=seed,
                      report=report, json=json, said=one.said)  # fmt: skip
        return
    asked = {"decompose": str(file), "name": name, "format": format, "tol": tol, "budget": budget, "dtype": dtype}
    asked |= {"device": device, "seed": seed, "missing": missing, "thorough": thorough}
    with nullcontext() if out_file is None else unfinished(out_file, asked) as work:
        names = _formats(format, some_missing=one.mask is not None)
        limit = None if thorough else LIMIT
        _compare(one, names, _tolerances(tol), budget, limit, work, report, json=json)


def _compare(
    one: Any, names: list[str], tolerances: list[float], budget: int | None, limit: float | None, work: Work | None,
    report: Path | None, *, json: bool,
) -> None:  # fmt: skip
    """Print each point when it is known, then what is smallest; save that where ``work`` says so."""
    from polyad.decompose.ranks.compare_formats import format_points

    every = format_points(one.x, names, tol=tolerances, mask=one.mask, limit=limit)
    if not json:
        print_head(one.title)
    points = []
    for point in every:
        points.append(point)
        if not json and _fits(point, budget):
            print_point(point, one.stored, one.modes)
    shown = [p for p in points if _fits(p, budget)]
    good = [p for p in shown if p.made is not None and p.error is not None and p.error <= min(tolerances)]
    best = min(good, key=lambda p: p.nbytes or 0, default=None)
    sentence = verdict(points, best, min(tolerances), budget, one.stored)
    if work is not None:
        _save(best, work, f"{sentence}; nothing was saved. Ask for a larger --tol" + " or --budget" * bool(budget))
    if report is not None:
        _report(report, one.title, shown, sentence)
    if json:
        saved = None if work is None or best is None else {"file": str(work.target), **record(best)}
        emit({**one.said, "points": [record(p) for p in shown], "saved": saved})
        return
    out.print(sentence, soft_wrap=True)
    if work is not None and best is not None:
        out.print(f"saved {best.format} at error {best.error:.3g} to {work.target}", soft_wrap=True)
    if report is not None:
        out.print(f"report in {report}", soft_wrap=True)


def _fits(point: Any, budget: int | None) -> bool:
    return budget is None or (point.nbytes or 0) <= budget


def _save(best: Any, work: Work, otherwise: str) -> None:
    """Save the best format to the target; a ValueError says ``otherwise`` where there is none."""
    from polyad.formats.files import save_format

    if best is None or best.made is None:
        raise ValueError(otherwise)
    work.set_aside()
    save_format(best.made, work.target)


def _report(path: Path, title: str, points: list[Any], sentence: str) -> None:
    from polyad.report.study import Quantity, Study, StudyTrial, write_study

    quantities = {
        "bytes": Quantity("bytes", "B"),
        "error": Quantity("relative error"),
        "seconds": Quantity("seconds"),
    }
    trials = [
        StudyTrial(f"{p.format}, tol {p.asked['tol']:g}" if "tol" in p.asked else p.format,
              {"bytes": p.nbytes, "error": p.error, "seconds": p.seconds}, failed=p.reason)
        for p in points
    ]  # fmt: skip
    said = f"{sentence[0].upper()}{sentence[1:]}."
    write_study(path, Study(title, said, command(), quantities, trials, "bytes", "error", {"Tensor": title}))


def _check_file(path: Path | None) -> None:
    """Refuse what could not be saved to, before any work."""
    if path is None:
        return
    if path.suffix != ".safetensors":
        raise ValueError(f"--out {path} is no .safetensors file, which is what a format is saved as")
    if os.path.lexists(path) and not was_stopped(path):
        remove_rest(path)
        raise ValueError(f"{path} exists already; name another file, or remove it first")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} to save {path.name} in; make it first")


def _formats(text: str | None, *, some_missing: bool) -> list[str]:
    from polyad.decompose.ranks.compare_formats import MASKED, SHORT

    wanted = (
        list(MASKED if some_missing else SHORT)
        if text is None
        else [part.strip().lower() for part in text.split(",") if part.strip()]
    )
    if not wanted:
        raise ValueError(f"--format is empty; choose from {', '.join(SHORT)}, or leave it out for all of them")
    return wanted


def _tolerances(text: str | None) -> list[float]:
    from polyad.decompose.ranks.compare_formats import TOLERANCES

    return list(TOLERANCES) if text is None else [_error(part) for part in text.split(",")]


def _single_tol(text: str | None) -> float | None:
    if text is not None and "," in text:
        raise ValueError(f"--tol {text} gives several errors, and --method makes one decomposition; give one")
    return None if text is None else _error(text)


def _error(part: str) -> float:
    try:
        return float(part)
    except ValueError:
        raise ValueError(f"--tol holds {part!r}, which is no number; write for example --tol 0.1,0.01") from None
