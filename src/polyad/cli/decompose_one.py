"""``polyad decompose --method``: one decomposition, its factors beside the tensor's file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyad.cli.decompose_lines import print_head, print_point, record
from polyad.cli.output import command, emit, number, out, progress


def method_of(text: str, rank: str | None, tol: float | None) -> tuple[Any, dict[str, Any]]:
    """The decomposition that ``--method`` names and its arguments, those of --rank and --tol included."""
    from polyad._arguments import arguments, check_arguments, read_method, read_value
    from polyad._calls import REQUIRED

    card, chosen = read_method(text, ["decompose"])
    for name, value in (("rank", None if rank is None else read_value(rank)), ("tol", tol)):
        if value is None:
            continue
        if name in chosen:
            raise ValueError(f"--method {text} and --{name} {value} both give a {name}; leave one out")
        chosen[name] = value
    check_arguments(card, chosen)
    takes = arguments(card)
    missing = [a.name for a in takes.values() if a.default is REQUIRED and a.name not in chosen]
    if missing:
        raise ValueError(f"{card.name} needs {missing[0]}; write --method {text}{':,'[':' in text]}{missing[0]}=…")
    if {"rank", "tol"} <= set(takes) and not {"rank", "tol"} & set(chosen) and takes["rank"].default is None:
        raise ValueError(f"{card.name} needs a rank or a relative error; give --rank 5 or --tol 0.1")
    return card, chosen


def place_of(file: Path, card: Any, chosen: Mapping[str, Any], asked: Path | None) -> Path:
    """The .npz file of the factors, by default beside the tensor's; one that is there is refused."""
    path = asked
    if path is None:
        size = "".join(f"-{key}{_size_text(chosen[key])}" for key in ("rank", "tol") if key in chosen)
        path = file.with_name(f"{file.stem}-{card.name}{size}.npz")
    if path.suffix not in (".npz", ".safetensors"):
        raise ValueError(f"--out {path} is neither .npz (named factors) nor .safetensors (a format to load again)")
    if os.path.lexists(path):
        raise ValueError(f"{path} exists already; name another file with --out, or remove it first")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {path.parent} to save {path.name} in; make it first")
    return path


def _size_text(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def decompose_one(
    x: Any,
    title: str,
    stored: int,
    card: Any,
    chosen: Mapping[str, Any],
    path: Path,
    *,
    mask: Any,
    modes: tuple[str, ...] | None,
    seed: int,
    report: Path | None,
    json: bool,
    said: Mapping[str, Any],
) -> None:
    """Decompose x, print error and size, and save the factors by the names of their modes."""
    from polyad.data.factors import named_factors, write_factors
    from polyad.formats.files import save_format

    point = _fit(x, card, chosen, mask, seed)
    if point.made is None:
        raise ValueError(f"{card.name}: {point.reason}")
    factors = named_factors(point.made, modes)
    if path.suffix == ".npz":
        write_factors(path, factors)
    else:
        save_format(point.made, path)
    if report is not None:
        _report(report, title, card, point, factors, stored)
    shapes = {name: list(t.shape) for name, t in factors.items()}
    if json:
        emit({**said, "method": card.name, **record(point), "factors": shapes, "saved": str(path)})
        return
    print_head(title)
    print_point(point, stored, modes)
    if point.nbytes >= stored:
        out.print(f"this is no smaller than the file ({number(stored, 0)} bytes)")
    listed = ", ".join(f"{name} {' x '.join(map(str, shape)) or '1'}" for name, shape in shapes.items())
    out.print(f"factors: {listed}", soft_wrap=True)
    out.print(f"saved to {path}" + (f", report in {report}" if report else ""), soft_wrap=True)


def _fit(x: Any, card: Any, chosen: Mapping[str, Any], mask: Any, seed: int) -> Any:
    import inspect

    import torch

    from polyad.decompose.ranks.point import decompose_point

    takes = inspect.signature(card.function).parameters
    if mask is not None and "mask" not in takes:
        raise ValueError(f"{card.name} takes no missing entries; {', '.join(_masked_methods())} do")
    more: dict[str, Any] = {}
    if "generator" in takes:
        more["generator"] = torch.Generator(device=x.device).manual_seed(seed)
    with progress() as callback:
        if "callback" in takes:
            more["callback"] = lambda step, total, values: callback(step, total, {**values, "stage": card.name})
        return decompose_point(card.name, card.function, x, dict(chosen), mask=mask, **more)


def _masked_methods() -> list[str]:
    """The decompositions that take missing entries."""
    import inspect

    from polyad import methods

    return [c.name for c in methods("decompose") if "mask" in inspect.signature(c.function).parameters]


def _report(path: Path, title: str, card: Any, point: Any, factors: Any, stored: int) -> None:
    from polyad.report.factors import write_factor_report

    facts = {
        "Tensor": title, "Method": card.name, **{k.capitalize(): v for k, v in point.asked.items()},
        "Relative error": f"{point.error:.3e}", "Bytes": f"{point.nbytes:,} (the file's: {stored:,})",
        "Seconds": f"{point.seconds:.2f}",
    }  # fmt: skip
    write_factor_report(path, f"{card.name} of {title.partition(':')[0]}", factors, command(), facts)
