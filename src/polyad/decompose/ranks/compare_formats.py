"""Formats compared by size: error against numbers stored, side by side."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import card
from polyad.decompose.ranks.forecast import machine_rate, unfolding_seconds
from polyad.decompose.ranks.point import Point, decompose_point
from polyad.decompose.ranks.rank_search import duration, search_points
from polyad.decompose.ranks.unfoldings import best_rows, unfolded_svd
from polyad.formats import Format

TOLERANCES = (0.3, 0.1, 0.03, 0.01)
SHORT = {
    "matrix": "svd", "tucker": "st_hosvd", "tt": "tt_svd", "ring": "tr_svd", "tree": "hierarchical_tucker",
    "tubal": "t_svd", "cp": "cp_als",
}  # fmt: skip
"""Names of formats on the command line, and the decomposition that makes each."""
MASKED = {"matrix": "masked_als", "tucker": "hooi", "cp": "cp_als"}
"""The decompositions that take the place of those where entries are missing."""
BY_RANK = frozenset({"cp_als", "masked_als"})
"""Decompositions whose rank is searched here, so that a rank is decomposed once for all tolerances."""
QUICK: Mapping[str, Mapping[str, Any]] = {"cp_als": {"restarts": 1, "max_iter": 30}}
"""Arguments that trade accuracy for speed where many ranks are tried for a tolerance."""


def compare_formats(
    x: Tensor,
    formats: Iterable[str] = tuple(SHORT),
    *,
    tol: Iterable[float] = TOLERANCES,
    budget: int | None = None,
    mask: Tensor | None = None,
    limit: float | None = None,
    callback: Callback | None = None,
) -> list[Point]:
    """Decompose x into each format at each tolerance, and measure error, size and time.

    The matrix of three and more modes is the unfolding that takes the fewest numbers. Points above ``budget`` bytes
    are left out. A format that x's shape does not suit gives one point with the reason. ``mask``, of bools, is True
    where an entry was seen. What is foreseen to take a format over ``limit`` seconds is left out, with the reason.
    x has two or more modes and a floating dtype.

    >>> import torch
    >>> points = compare_formats(torch.outer(torch.arange(1.0, 9), torch.ones(9)), ["matrix"], tol=[0.01])
    >>> points[0].parameters, points[0].error < 1e-6
    (17, True)
    """
    names = list(formats)
    points: list[Point] = []
    for point in format_points(x, names, tol=tol, mask=mask, limit=limit):
        if callback is not None:
            callback(names.index(point.format) + 1, len(names), {"stage": "decompose", "format": point.format})
        if budget is None or (point.nbytes or 0) <= budget:
            points.append(point)
    return points


def format_points(
    x: Tensor,
    formats: Iterable[str] = tuple(SHORT),
    *,
    tol: Iterable[float] = TOLERANCES,
    mask: Tensor | None = None,
    limit: float | None = None,
) -> Iterator[Point]:
    """The points of ``compare_formats``, each as soon as it is known."""
    _check.dimensions("x", _check.floating("x", x), 2)
    _check.finite("x", x if mask is None else x.where(mask, 0))
    names, tolerances = list(formats), sorted((_check.tolerance(t) for t in tol), reverse=True)
    unknown = [name for name in names if name not in SHORT]
    if unknown:
        raise ValueError(f"format {unknown[0]!r} is not known; choose from {', '.join(SHORT)}")
    rate = machine_rate(x) if limit is not None else 0.0
    return (point for name in names for point in _points(x, name, tolerances, mask, limit, rate))


def _points(
    x: Tensor, name: str, tolerances: list[float], mask: Tensor | None, limit: float | None, rate: float
) -> Iterator[Point]:
    if mask is not None and name not in MASKED:
        yield Point(name, {}, None, None, 0.0, f"takes no missing entries; {', '.join(MASKED)} do")
        return
    method = (SHORT if mask is None else MASKED)[name]
    function = card(method).function
    if name == "matrix" and x.ndim != 2 and mask is not None:
        yield Point(name, {}, None, None, 0.0, f"a matrix with missing entries has two modes, this tensor {x.ndim}")
    elif method in BY_RANK or mask is not None:  # from a part of the entries no rank follows
        solve = partial(_solve, x, name, function, mask, limit, QUICK.get(method, {}))
        yield from search_points(name, solve, tolerances, _largest_rank(x, method), limit)
    else:
        yield from _by_tolerance(x, name, function, tolerances, mask, limit, rate)


def _largest_rank(x: Tensor, method: str) -> int:
    """The largest rank at which a format is smaller than x and that its decomposition takes."""
    if method == "hooi":  # one rank for all modes, cut to those that are smaller
        return max(x.shape)
    return max(1, min((x.numel() - 1) // sum(x.shape), x.numel() // max(x.shape)))


def _solve(
    x: Tensor, name: str, function: Any, mask: Tensor | None, limit: float | None, quick: Mapping[str, Any], rank: int
) -> Point:
    return decompose_point(name, function, x, {"rank": rank}, mask=mask, limit=limit, **quick)


def _by_tolerance(
    x: Tensor,
    name: str,
    function: Callable[..., Format],
    tolerances: list[float],
    mask: Tensor | None,
    limit: float | None,
    rate: float,
) -> Iterator[Point]:
    foreseen = unfolding_seconds(x, rate) if limit is not None else 0.0
    if limit is not None and foreseen > limit:
        yield Point(name, {}, None, None, 0.0, f"left out, foreseen to take {duration(foreseen)} a tolerance", True)
        return
    rows = best_rows(x, tolerances) if name == "matrix" and x.ndim != 2 else {}
    takes_tol = "tol" in inspect.signature(function).parameters
    for tol in tolerances:
        asked = {"tol": tol} if takes_tol else {}
        if tol in rows:
            point = decompose_point(name, unfolded_svd, x, {"tol": tol, "rows": rows[tol]}, limit=limit)
        else:
            point = decompose_point(name, function, x, asked, mask=mask, limit=limit)
        yield point
        if point.made is None:
            return
