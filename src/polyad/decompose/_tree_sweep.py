"""Products of a dense tensor with all factors but one, shared between the modes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor


def sweep(x: Tensor, factors: list[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Each mode in turn and its MTTKRP (b, R, I_n) with the factors (b, R, I_m) as they are when it is asked for.

    x is contiguous, (b, I₁, …, I_N). A binary tree over the modes: the first half of them shares x times the last
    factors, the second half x times the first ones, updated by then; and so within the halves. So a sweep costs two
    matrix products with x, 4 R numel(x) operations, at any N, and no Khatri-Rao product is formed.
    """
    yield from _halves(x, factors, 0, x.ndim - 1, shared=False)


def _halves(x: Tensor, factors: list[Tensor], first: int, last: int, *, shared: bool) -> Iterator[tuple[int, Tensor]]:
    """The modes from first up to last; x is (b, I…), or (b, R, I…) once it is ``shared``: multiplied by a factor."""
    if last - first == 1:
        yield first, x
        return
    middle = (first + last) // 2
    part = x
    for mode in range(last - 1, middle - 1, -1):
        part = _without_last(part, factors[mode], shared=shared or mode < last - 1)
    yield from _halves(part, factors, first, middle, shared=True)
    part = x
    for mode in range(first, middle):
        part = _without_first(part, factors[mode], shared=shared or mode > first)
    yield from _halves(part, factors, middle, last, shared=True)


def _without_last(x: Tensor, factor: Tensor, *, shared: bool) -> Tensor:
    b, r, n = factor.shape
    if not shared:
        return (factor @ x.reshape(b, -1, n).mT).reshape(b, r, *x.shape[1:-1])
    return (x.reshape(b * r, -1, n) @ factor.reshape(b * r, n, 1)).reshape(x.shape[:-1])


def _without_first(x: Tensor, factor: Tensor, *, shared: bool) -> Tensor:
    b, r, n = factor.shape
    rest = x.shape[3:] if shared else x.shape[2:]
    if not shared:
        return (factor @ x.reshape(b, n, -1)).reshape(b, r, *rest)
    return (factor.reshape(b * r, 1, n) @ x.reshape(b * r, n, math.prod(rest))).reshape(b, r, *rest)
