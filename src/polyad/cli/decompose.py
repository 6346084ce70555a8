"""``polyad decompose``: a file's tensor in every format, error against size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from polyad.cli import options
from polyad.cli.output import emit, number, out, progress, share, table


def decompose(
    file: Annotated[Path, typer.Argument(help="a .npy, .npz or .safetensors file, or a picture")],
    format: Annotated[str | None, typer.Option(help="formats, joined by commas; by default all that suit")] = None,
    tol: Annotated[str | None, typer.Option(help="relative errors, joined by commas")] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="leave out what takes more bytes than this")] = None,
    name: Annotated[str | None, typer.Option(help="which tensor of the file")] = None,
    out_file: Annotated[Path | None, typer.Option("--out", help="save the smallest one within --tol here")] = None,
    device: options.Device = "cpu",
    dtype: options.Dtype = "float32",
    seed: options.Seed = 0,
    json: options.Json = False,
) -> None:
    """Show what each format makes of the tensor in FILE, and save the smallest."""
    from polyad.data.tensors import read_tensors
    from polyad.decompose.trade import SHORT, TOLERANCES, trade
    from polyad.formats.files import save_format

    options.seeded(seed)
    if out_file is not None and out_file.exists():
        raise ValueError(f"{out_file} exists already; name another file, or remove it first")
    held = _chosen(read_tensors(file), name, file)
    stored = held.numel() * held.element_size()
    x = held.to(device=device, dtype=options.dtype_of(dtype))
    wanted = list(SHORT) if format is None else [part.strip() for part in format.split(",") if part.strip()]
    tolerances = TOLERANCES if tol is None else [_error(part) for part in tol.split(",")]
    with progress() as callback:
        points = trade(x, wanted, tol=tolerances, budget=budget, callback=callback)
    good = [p for p in points if p.made is not None and p.error is not None and p.error <= min(tolerances)]
    best = min(good, key=lambda p: p.nbytes or 0, default=None)
    if out_file is not None:
        if best is None or best.made is None:
            raise ValueError(f"no format reached {min(tolerances):g}; nothing was saved. Ask for a larger --tol")
        save_format(best.made, out_file)
    if json:
        saved = None if out_file is None or best is None else {"file": str(out_file), **_record(best)}
        said = {"file": str(file), "shape": list(x.shape), "numbers": x.numel(), "bytes": stored}
        emit({**said, "points": [_record(p) for p in points], "saved": saved})
        return
    show(f"{file}: {' x '.join(map(str, x.shape))}", points, x.numel(), stored)
    if out_file is not None and best is not None:
        out.print(f"saved {best.format} at error {best.error:.3g} to {out_file}")


def show(title: str, points: list[Any], numbers: int, stored: int) -> None:
    """The table of all points, and below it the formats that do not suit, with the reason."""
    columns = ["format", "asked", "error", "numbers", "of all", "bytes", "of all", "seconds"]
    rows = [_row(p, numbers, stored) for p in points if p.made is not None]
    table(f"{title}, {number(numbers, 0)} numbers, {number(stored, 0)} bytes", columns, rows)
    for point in points:
        if point.made is None:
            out.print(f"{point.format}: {point.reason}", soft_wrap=True)


def _chosen(found: dict[str, Any], name: str | None, file: Path) -> Any:
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name not in found:
        held = ", ".join(f"{key} {tuple(x.shape)}" for key, x in list(found.items())[:8])
        more = "" if len(found) <= 8 else f" and {len(found) - 8} more"
        raise ValueError(f"{file} holds {held}{more}; choose one with --name")
    return found[name]


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
