"""The tensor that ``polyad decompose`` reads: chosen, understood, its missing entries, in the dtype to compute in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyad.cli import options
from polyad.cli.output import number
from polyad.data.factors import check_modes
from polyad.data.tensors import Reading, read_file


@dataclass(frozen=True)
class Asked:
    """The tensor to decompose, what was seen of it, the names of its modes, and the words about it."""

    x: Tensor
    mask: Tensor | None
    modes: tuple[str, ...] | None
    title: str
    stored: int
    said: Mapping[str, Any]


def tensor_of(file: Path, name: str | None, modes: str | None, missing: str | None, dtype: str, device: str) -> Asked:
    """The tensor of a file that a command asks for; what cannot be decomposed is refused by the file's name."""
    reading = _choose_reading(read_file(file), name, file)
    stored, what = reading.tensor, str(file) if name is None else f"{name} in {file}"
    if stored.ndim < 2 or not stored.numel():
        raise ValueError(f"{what} has shape {tuple(stored.shape)}; two or more modes, none of them empty, are needed")
    names = reading.modes if modes is None else check_modes([m.strip() for m in modes.split(",")], stored.shape)
    x, mask = _seen(stored, missing, what)
    x = _computable(x, what, dtype).to(options.device_of(device))
    nbytes = stored.numel() * stored.element_size()
    shape = " x ".join(
        f"{label} {n}" if label else str(n)
        for label, n in zip(names or [""] * stored.ndim, stored.shape, strict=True)
    )
    title = f"{what}: {shape}, {number(x.numel(), 0)} numbers, {number(nbytes, 0)} bytes"
    title += f"; {reading.how}" if reading.how else ""
    if mask is not None:
        mask = mask.to(x.device)
        title += f"; {number(int((~mask).sum()), 0)} of them missing"
    said = {"file": str(file), "shape": list(x.shape), "numbers": x.numel(), "bytes": nbytes, "read_as": reading.how}
    return Asked(x, mask, names, title, nbytes, said | ({} if mask is None else {"missing": int((~mask).sum())}))


def _choose_reading(readings: Mapping[str, Reading], name: str | None, file: Path) -> Reading:
    if name is None and len(readings) == 1:
        return next(iter(readings.values()))
    if name is None or name not in readings:
        names = ", ".join(f"{key} {tuple(r.tensor.shape)}" for key, r in list(readings.items())[:8])
        more = "" if len(readings) <= 8 else f" and {len(readings) - 8} more"
        raise ValueError(f"{file} holds {names}{more}; choose one with --name")
    return readings[name]


def _seen(stored: Tensor, missing: str | None, what: str) -> tuple[Tensor, Tensor | None]:
    """The tensor with zeros where nothing was seen, and the mask of what was; no mask where all was."""
    if missing is None:
        return stored, None
    try:
        value = float(missing)
    except ValueError:
        raise ValueError(
            f"--missing {missing} is neither nan nor a number; write for example --missing nan"
        ) from None
    hidden = stored.isnan() if math.isnan(value) else stored == value
    if not bool(hidden.any()):
        raise ValueError(f"{what} holds no {missing}, so nothing is missing; leave --missing out")
    if bool(hidden.all()):
        raise ValueError(f"{what} holds nothing but {missing}; nothing was seen that could be decomposed")
    return torch.where(hidden, torch.zeros_like(stored), stored), ~hidden


def _computable(stored: Tensor, what: str, dtype: str) -> Tensor:
    """The tensor in the dtype to compute in. Refuses what cannot be decomposed, by the file's name."""
    if stored.is_complex():
        raise ValueError(f"{what} holds complex numbers; decompose the real and the imaginary part one by one")
    nan, infinite = int(stored.isnan().sum()), int(stored.isinf().sum())
    if nan or infinite:
        hint = "--missing nan takes NaN for entries that were not seen" if nan and not infinite else "save it again"
        raise ValueError(f"{what} holds {nan} NaN and {infinite} infinite numbers; replace them, or {hint}")
    x = stored.to(options.dtype_of(dtype))
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{what} holds numbers too large for --dtype {dtype}; try --dtype float64")
    return x
