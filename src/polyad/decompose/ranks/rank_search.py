"""Formats that take a rank: the smallest for each of several tolerances, every rank decomposed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from polyad.decompose.ranks.forecast import search_seconds
from polyad.decompose.ranks.point import Point

KNOWN = 4
"""Ranks that are tried before the time of the next ones is foreseen."""


def search_points(
    name: str, solve: Callable[[int], Point], tolerances: Sequence[float], most: int, limit: float | None
) -> Iterator[Point]:
    """A point for each tolerance, the largest first: its smallest rank, or why there is none.

    Ranks grow by half and are then bisected, up to ``most``, above which the format would be no smaller than the
    tensor. A tolerance whose search is foreseen to take the format over ``limit`` seconds is left out.
    """
    fits: dict[int, Point] = {}
    for tol in tolerances:
        seconds = 0.0
        while True:
            low, high = _bracket(fits, tol, most)
            if high - low <= 1:
                break
            foreseen = _foreseen(fits, tol, most, limit) if high > most else None
            if foreseen is not None:
                yield Point(name, {"tol": tol}, None, None, seconds, f"left out, foreseen to take {foreseen}", True)
                break
            rank = min(most, max(low + 1, low * 3 // 2)) if high > most else (low + high) // 2
            point = solve(rank)
            seconds += point.seconds
            if point.error is None:
                yield replace(point, asked={"tol": tol, "rank": rank})
                return
            fits[rank] = point
        if high - low > 1:
            continue
        if high <= most:
            yield replace(fits[high], asked={"tol": tol, "rank": high}, seconds=seconds or fits[high].seconds)
        else:
            reason = f"no rank at which it would be smaller than the tensor (up to {most}) comes within {tol:g}"
            yield Point(name, {"tol": tol}, None, None, seconds, reason)


def _bracket(fits: Mapping[int, Point], tol: float, most: int) -> tuple[int, int]:
    """The largest rank known to miss the tolerance and the smallest known to meet it, ``most + 1`` if none is."""
    met = [rank for rank, point in fits.items() if point.error is not None and point.error <= tol]
    high = min(met, default=most + 1)
    return max((rank for rank in fits if rank < high and rank not in met), default=0), high


def _foreseen(fits: Mapping[int, Point], tol: float, most: int, limit: float | None) -> str | None:
    """The time and the rank that the search is foreseen to need, where that is too long; else None."""
    if limit is None or len(fits) < KNOWN:
        return None
    measured = {rank: (point.error or 0.0, point.seconds) for rank, point in fits.items()}
    more, rank = search_seconds(measured, tol, most)
    total = more + sum(point.seconds for point in fits.values())
    return None if total <= limit else f"about {duration(total)} (ranks up to {rank:,})"


def duration(seconds: float) -> str:
    """A time for people, in two digits at most.

    >>> duration(42.3), duration(150), duration(9000)
    ('42 seconds', '2 minutes', '2.5 hours')
    """
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.2g} hours"
