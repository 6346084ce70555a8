"""The time that a decomposition will take, foreseen from what was measured."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor

EFFORT = 8.0
"""Operations of a factorisation by orthogonal bases, in products of the tensor with a square matrix."""
PROBE = 384
"""Side of the matrices whose product tells the machine's rate."""
GROWTH = 1.5
"""The factor between ranks that are tried one after another."""


def machine_rate(x: Tensor) -> float:
    """Floating-point operations a second in a product of matrices of x's dtype, on its device."""
    a = torch.rand(PROBE, PROBE, dtype=x.dtype, device=x.device)
    float((a @ a)[0, 0])
    clock = time.perf_counter()
    float((a @ a)[0, 0])
    return 2 * PROBE**3 / max(time.perf_counter() - clock, 1e-9)


def unfolding_seconds(x: Tensor, rate: float) -> float:
    """Seconds of the orthogonal bases of all unfoldings of x, as formats with a tolerance take them."""
    sides = [min(n, x.numel() // n) for n in x.shape]
    left = 1
    for n in x.shape[:-1]:
        left *= n
        sides.append(min(left, x.numel() // left))
    return EFFORT * x.numel() * sum(sides) / rate


def search_seconds(fits: Mapping[int, tuple[float, float]], tol: float, most: int) -> tuple[float, int]:
    """Seconds that growing ranks still take until ``tol``, and the rank foreseen; ``fits``: (error, seconds) by rank.

    The error is taken to go on falling by the same power of the rank as between the last ranks, and the time to grow
    with the rank. No rank above ``most`` is tried.

    >>> fits = {1: (0.8, 0.1), 2: (0.4, 0.2), 4: (0.2, 0.4)}
    >>> seconds, rank = search_seconds(fits, 0.1, 100)
    >>> rank
    8
    """
    ranks = sorted(fits)
    last = ranks[-1]
    earlier = max((r for r in ranks if r <= last / 2), default=ranks[0])
    fall = math.log(max(fits[earlier][0], 1e-30) / max(fits[last][0], 1e-30))
    power = fall / math.log(last / earlier) if last > earlier else 0.0
    needed = float(most)
    if power > 0.01:
        logarithm = math.log(last) + math.log(max(fits[last][0] / max(tol, 1e-12), 1.0)) / power
        needed = min(float(most), math.exp(min(logarithm, 60.0)))
    all_ranks = needed * GROWTH / (GROWTH - 1)  # the sum of the ranks tried
    return fits[last][1] / last * max(all_ranks, last), max(last, round(needed))
