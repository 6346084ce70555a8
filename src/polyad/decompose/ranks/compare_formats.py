"""Formats compared by size: error against numbers stored, side by side."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import card
from polyad.formats import Format

TOLERANCES = (0.3, 0.1, 0.03, 0.01)
SHORT = {
    "matrix": "svd", "tucker": "st_hosvd", "tt": "tt_svd", "ring": "tr_svd", "tree": "hierarchical_tucker",
    "tubal": "t_svd", "cp": "cp_als",
}  # fmt: skip
"""Names of formats on the command line, and the decomposition that makes each."""

QUICK = {"cp": {"restarts": 1, "max_iter": 30}}
"""Arguments that trade accuracy for speed where many ranks are tried for a tolerance."""


@dataclass(frozen=True)
class Point:
    """One format at one size: relative Frobenius error, numbers and bytes stored, seconds taken; or why it failed."""

    format: str
    asked: Mapping[str, Any]
    made: Format | None
    error: float | None
    seconds: float
    reason: str | None = None

    @property
    def parameters(self) -> int | None:
        return None if self.made is None else self.made.parameters

    @property
    def nbytes(self) -> int | None:
        return None if self.made is None else self.made.nbytes


def compare_formats(
    x: Tensor,
    formats: Iterable[str] = tuple(SHORT),
    *,
    tol: Iterable[float] = TOLERANCES,
    budget: int | None = None,
    callback: Callback | None = None,
) -> list[Point]:
    """Decompose x into each format at each tolerance, and measure error, size and time.

    Formats that take a rank and no tolerance get ranks 1, 2, 4, … until the smallest tolerance is met or x itself
    would be smaller. Points above ``budget`` bytes are left out. A format that x's shape does not suit gives one
    point with the reason. x has two or more modes and a floating dtype.

    >>> import torch
    >>> points = compare_formats(torch.outer(torch.arange(1.0, 9), torch.ones(9)), ["matrix"], tol=[0.01])
    >>> points[0].parameters, points[0].error < 1e-6
    (17, True)
    """
    _check.finite("x", _check.dimensions("x", _check.floating("x", x), 2))
    names, tolerances = list(formats), sorted((_check.tolerance(t) for t in tol), reverse=True)
    unknown = [name for name in names if name not in SHORT]
    if unknown:
        raise ValueError(f"format {unknown[0]!r} is not known; choose from {', '.join(SHORT)}")
    points: list[Point] = []
    for number, name in enumerate(names, 1):
        points += [point for point in _points(x, name, tolerances) if budget is None or (point.nbytes or 0) <= budget]
        if callback is not None:
            callback(number, len(names), {"stage": "decompose", "format": name})
    return points


def _points(x: Tensor, name: str, tolerances: list[float]) -> Iterator[Point]:
    function, kind = card(SHORT[name]).function, card(SHORT[name]).makes
    if x.ndim != 2 and getattr(kind, "matrix", False):
        yield Point(name, {}, None, None, 0.0, f"a matrix has two modes, this tensor {x.ndim}")
        return
    if "tol" in inspect.signature(function).parameters:
        for one in tolerances:
            point = _point(x, name, function, {"tol": one})
            yield point
            if point.made is None:
                return
        return
    rank = 1
    while True:
        point = _point(x, name, function, {"rank": rank})
        yield point
        if point.made is None or point.error is None or point.error <= min(tolerances, default=0.0):
            return
        if 2 * point.made.parameters >= x.numel():
            return
        rank *= 2


def _point(x: Tensor, name: str, function: Callable[..., Format], asked: dict[str, Any]) -> Point:
    clock = time.perf_counter()
    try:
        result = function(x, **asked, **QUICK.get(name, {}))
    except ValueError as refused:
        return Point(name, asked, None, None, time.perf_counter() - clock, str(refused))
    seconds = time.perf_counter() - clock
    size = x.abs().max().double()
    size = size.where(size > 0, 1)  # so that the squares of very large and small numbers are those of near ones
    exact = x.double() / size
    off = float((result.to_dense().double() / size - exact).norm() / exact.norm().clamp(min=1e-300))
    return Point(name, asked, result, off, seconds)
