"""Tables of numbers in .csv files."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import torch
from torch import Tensor

from polyad.data.rows import csv_cells

ABSENT = frozenset({"", "na", "nan", "null", "none", "n/a", "?"})
"""Cells that hold no number, read as NaN."""


def read_numbers(path: Path) -> tuple[Tensor, str]:
    """A table of numbers, float64 (rows, columns), and how it was read; what is absent is NaN.

    A first row without numbers is a header, and a column of words a label: both are left out, and said.
    """
    try:
        cells = [row for row in csv_cells(path) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise ValueError(f"{path} is no whole csv file ({error}); save it again") from None
    if not cells:
        raise ValueError(f"{path} is empty; give a table of numbers")
    widths = {len(row) for row in cells}
    if len(widths) > 1:
        at = next(i for i, row in enumerate(cells, 1) if len(row) != len(cells[0]))
        raise ValueError(
            f"row {at} of {path} has {len(cells[at - 1])} columns, the first {len(cells[0])}; complete it"
        )
    values = [[_number(cell) for cell in row] for row in cells]
    header = len(values) > 1 and all(value is None for value in values[0])
    names, body = (cells[0], values[1:]) if header else ([f"column {i}" for i in range(1, len(cells[0]) + 1)], values)
    labels = [j for j in range(len(names)) if all(row[j] is None for row in body)]
    numeric = [j for j in range(len(names)) if j not in labels]
    wrong = next(((i, j) for i, row in enumerate(body) for j in numeric if row[j] is None), None)
    if not numeric or wrong is not None:
        where = "" if wrong is None else f"row {wrong[0] + 1 + header}, column {wrong[1] + 1} of "
        cell = "" if wrong is None else f" ({cells[wrong[0] + header][wrong[1]]!r})"
        raise ValueError(f"{where}{path} holds no number{cell}; leave it empty where nothing was measured")
    how = "rows and columns of numbers" + (", the header left out" if header else "")
    if labels:
        how += f", {'and ' if header else ''}the words of {', '.join(names[j] for j in labels)} left out"
    return torch.tensor([[row[j] for j in numeric] for row in body], dtype=torch.float64), how


def _number(cell: str) -> float | None:
    """The number of a cell, NaN where it says that there is none, None where it holds words."""
    text = cell.strip()
    if text.lower() in ABSENT:
        return math.nan
    try:
        return float(text)
    except ValueError:
        return None
