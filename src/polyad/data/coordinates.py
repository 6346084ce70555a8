"""Sparse tensors as lines of coordinates and a value, in the form that FROSTT spreads."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

LARGEST = 2**28
"""Numbers of the dense tensor up to which it is made."""


def read_coordinates(path: Path) -> tuple[Tensor, str]:
    """The dense tensor of lines ``i j k value``, counted from 1, float64, and how it was read.

    Lines that begin with # are comments; values of one place are summed; each mode is as long as its largest
    coordinate.
    """
    rows: list[list[str]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        parts = line.partition("#")[0].split()
        if not parts:
            continue
        if len(parts) < 3 or (rows and len(parts) != len(rows[0])):
            raise ValueError(
                f"line {number} of {path} is {line.strip()!r}; write two or more coordinates and a value, as many on "
                "each line"
            )
        rows.append(parts)
    if not rows:
        raise ValueError(f"{path} holds no coordinates")
    try:
        places = torch.tensor([[int(n) for n in row[:-1]] for row in rows])
        values = torch.tensor([float(row[-1]) for row in rows], dtype=torch.float64)
    except ValueError as error:
        raise ValueError(f"{path} holds a coordinate or a value that is no number ({error})") from None
    if int(places.min()) < 1:
        raise ValueError(f"{path} holds the coordinate {int(places.min())}; they are counted from 1: add 1 to all")
    shape = tuple(places.amax(0).tolist())
    if math.prod(shape) > LARGEST:
        raise ValueError(
            f"{path} has the shape {' x '.join(map(str, shape))}, too large to be held with its zeros; decompose it "
            "in Python: polyad.decompose.sparse_cp_als takes a sparse tensor"
        )
    dense = torch.zeros(shape, dtype=torch.float64)
    dense.index_put_(tuple((places - 1).unbind(1)), values, accumulate=True)
    filled = 100 * int((dense != 0).sum()) / dense.numel()
    return dense, f"{len(rows):,} coordinates counted from 1, zeros elsewhere ({filled:.1f} % filled)"
