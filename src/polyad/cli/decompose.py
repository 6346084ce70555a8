"""``polyad decompose``: a file's tensor in every format, error against size."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from polyad._unfinished import Work, remove_rest, unfinished, was_stopped
from polyad.cli import options
from polyad.cli.output import emit, number, out, progress, share, table


def decompose(
    file: Annotated[Path, typer.Argument(help="a .npy, .npz or .safetensors file, or a picture")],
    format: Annotated[
        str | None, typer.Option(help="of matrix, tucker, tt, tree, tubal, cp, joined by commas; by default all")
    ] = None,
    tol: Annotated[
        str | None, typer.Option(help="relative errors, joined by commas; by default 0.3,0.1,0.03,0.01")
    ] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="leave out what takes more bytes than this")] = None,
    name: Annotated[str | None, typer.Option(help="which tensor of the file")] = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="save the smallest within the smallest --tol, .safetensors")
    ] = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Show what each format makes of the tensor in FILE, and save the smallest."""
    from polyad.data.tensors import read_tensors
    from polyad.decompose.ranks.compare_formats import SHORT, TOLERANCES, compare_formats

    options.fix_seed(seed)
    _check_file(out_file)
    tensor = _tensor_called(read_tensors(file), name, file)
    stored = tensor.numel() * tensor.element_size()
    x = _computable(tensor, str(file) if name is None else f"{name} in {file}", dtype).to(options.device_of(device))
    wanted = list(SHORT) if format is None else [part.strip().lower() for part in format.split(",") if part.strip()]
    if not wanted:
        raise ValueError(f"--format is empty; choose from {', '.join(SHORT)}, or leave it out for all of them")
    tolerances = TOLERANCES if tol is None else [_error(part) for part in tol.split(",")]
    asked = {"decompose": str(file), "name": name, "format": wanted, "tol": list(tolerances), "budget": budget}
    asked |= {"dtype": dtype, "device": device, "seed": seed}
    with nullcontext() if out_file is None else unfinished(out_file, asked) as work:
        with progress() as callback:
            every = compare_formats(x, wanted, tol=tolerances, callback=callback)
        points = [p for p in every if budget is None or (p.nbytes or 0) <= budget]
        good = [p for p in points if p.made is not None and p.error is not None and p.error <= min(tolerances)]
        best = min(good, key=lambda p: p.nbytes or 0, default=None)
        verdict = _verdict(every, best, min(tolerances), budget, stored)
        if work is not None:
            _save(best, work, f"{verdict}; nothing was saved. Ask for a larger --tol" + " or --budget" * bool(budget))
        if json:
            saved = None if out_file is None or best is None else {"file": str(out_file), **_record(best)}
            said = {"file": str(file), "shape": list(x.shape), "numbers": x.numel(), "bytes": stored}
            emit({**said, "points": [_record(p) for p in points], "saved": saved})
            return
        show(f"{file}: {' x '.join(map(str, x.shape))}", points, x.numel(), stored)
        out.print(verdict, soft_wrap=True)
        if out_file is not None and best is not None:
            out.print(f"saved {best.format} at error {best.error:.3g} to {out_file}")


def _save(best: Any, work: Work, otherwise: str) -> None:
    """Save the best format to the target; a ValueError says ``otherwise`` where there is none."""
    from polyad.formats.files import save_format

    if best is None or best.made is None:
        raise ValueError(otherwise)
    work.set_aside()
    save_format(best.made, work.target)


def show(title: str, points: list[Any], numbers: int, stored: int) -> None:
    """The table of all points, and below it the formats that do not suit, with the reason."""
    columns = ["format", "asked", "error", "numbers", "of all", "bytes", "of all", "seconds"]
    rows = [_row(p, numbers, stored) for p in points if p.made is not None]
    title = f"{title}, {number(numbers, 0)} numbers, {number(stored, 0)} bytes"
    if rows:
        table(title, columns, rows)
    else:
        out.print(title, soft_wrap=True)
    for point in points:
        if point.made is None:
            out.print(f"{point.format}: {point.reason}", soft_wrap=True)


def _check_file(path: Path | None) -> None:
    """Refuse what could not be saved to, before any work."""
    if path is None:
        return
    if path.suffix != ".safetensors":
        raise ValueError(f"--out {path} is no .safetensors file, which is what a format is saved as")
    if os.path.lexists(path) and not was_stopped(path):
        remove_rest(path)
        raise ValueError(f"{path} exists already; name another file, or remove it first")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} to save {path.name} in; make it first")


def _computable(held: Any, what: str, dtype: str) -> Any:
    """The tensor in the dtype to compute in. Refuses what cannot be decomposed, by the file's name."""
    import torch

    if held.ndim < 2 or not held.numel():
        raise ValueError(f"{what} has shape {tuple(held.shape)}; two or more modes, none of them empty, are needed")
    if held.is_complex():
        raise ValueError(f"{what} holds complex numbers; decompose the real and the imaginary part one by one")
    nan, infinite = int(held.isnan().sum()), int(held.isinf().sum())
    if nan or infinite:
        raise ValueError(
            f"{what} holds {nan} NaN and {infinite} infinite numbers; replace them and save it again, or, where they "
            "stand for missing entries, use mask= of polyad.decompose.cp_als or hooi in Python"
        )
    x = held.to(options.dtype_of(dtype))
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{what} holds numbers too large for --dtype {dtype}; try --dtype float64")
    return x


def _verdict(every: list[Any], best: Any, tol: float, budget: int | None, stored: int) -> str:
    """A sentence on the smallest format that is exact enough, or on the nearest to it."""
    if best is not None:
        of_file = f"{number(best.nbytes, 0)} bytes, {share(best.nbytes, stored)} of the file's"
        return f"smallest within {tol:g}: {best.format}, {of_file}"
    exact = [p for p in every if p.made is not None and p.error <= tol]
    if budget is not None and exact:
        least = min(exact, key=lambda p: p.nbytes)
        smallest = f"the smallest, {least.format}, takes {number(least.nbytes, 0)}"
        return f"nothing within {tol:g} fits into {number(budget, 0)} bytes; {smallest}"
    return f"no format came within {tol:g}"


def _tensor_called(tensors: dict[str, Any], name: str | None, file: Path) -> Any:
    if name is None and len(tensors) == 1:
        return next(iter(tensors.values()))
    if name not in tensors:
        names = ", ".join(f"{key} {tuple(x.shape)}" for key, x in list(tensors.items())[:8])
        more = "" if len(tensors) <= 8 else f" and {len(tensors) - 8} more"
        raise ValueError(f"{file} holds {names}{more}; choose one with --name")
    return tensors[name]


def _error(part: str) -> float:
    try:
        return float(part)
    except ValueError:
        raise ValueError(f"--tol holds {part!r}, which is no number; write for example --tol 0.1,0.01") from None


def _record(point: Any) -> dict[str, Any]:
    return {
        "format": point.format, **point.asked, "error": point.error, "parameters": point.parameters,
        "bytes": point.nbytes, "seconds": point.seconds, "rank": getattr(point.made, "rank", None),
        "reason": point.reason,
    }  # fmt: skip


def _row(point: Any, numbers: int, stored: int) -> list[str]:
    asked = ", ".join(f"{key} {value:g}" for key, value in point.asked.items())
    return [
        point.format, asked, f"{point.error:.2e}", number(point.parameters, 0), share(point.parameters, numbers),
        number(point.nbytes, 0), share(point.nbytes, stored), number(point.seconds, 3),
    ]  # fmt: skip
