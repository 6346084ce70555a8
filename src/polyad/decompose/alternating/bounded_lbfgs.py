"""Limited-memory quasi-Newton steps under lower bounds of zero."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_MEMORY, _TRIALS, _SUFFICIENT = 10, 30, 1e-4

Function = Callable[[Tensor], tuple[float, Tensor]]


def minimise(
    function: Function,
    start: Tensor,
    *,
    nonnegative: bool,
    max_iter: int,
    stop: float,
    after: Callable[[float], None],
) -> Tensor:
    """Minimise ``function``, which gives value and gradient, from the vector ``start``; a local minimum.

    L-BFGS. With bounds, entries at zero whose gradient would push them below are held for a step, and steps are
    searched along the projected path (Bertsekas 1982). Ends after ``max_iter`` steps, when two in a row gain less
    than the share ``stop`` of all gains, or when no step gains. ``after(value)`` follows every step.
    """
    x, (value, gradient) = start, function(start)
    first, calm, pairs = value, 0, []
    for _ in range(max_iter):
        free = (x > 0) | (gradient < 0) if nonnegative else torch.ones_like(x, dtype=torch.bool)
        slope = gradient * free
        direction = -_times_inverse(slope, pairs) * free
        if not pairs or float(direction @ slope) > -1e-10 * float(direction.norm() * slope.norm()):
            pairs, direction = [], -slope / slope.norm().clamp(min=1)
        accepted = _search(function, x, value, slope, direction, nonnegative)
        if accepted is None and pairs:  # the memory has led astray
            pairs, accepted = [], _search(function, x, value, slope, -slope / slope.norm().clamp(min=1), nonnegative)
        if accepted is None:
            break
        new, lower, changed = accepted
        s, y = new - x, changed - gradient
        if float(s @ y) > 1e-10 * float(s.norm() * y.norm()):
            pairs = [*pairs[1 - _MEMORY :], (s, y)]
        calm = calm + 1 if value - lower <= stop * (first - lower) else 0
        x, value, gradient = new, lower, changed
        after(value)
        if calm == 2:
            break
    return x


def _search(
    function: Function, x: Tensor, value: float, slope: Tensor, direction: Tensor, nonnegative: bool
) -> tuple[Tensor, float, Tensor] | None:
    """The first step along the path that gains enough, each trial at the minimum of a parabola; None if none does."""
    step = 1.0
    for _ in range(_TRIALS):
        new = x + step * direction
        if nonnegative:
            new = new.clamp(min=0)
        expected = float(slope @ (new - x))
        lower, gradient = function(new)
        if expected < 0 and lower <= value + _SUFFICIENT * expected and bool(torch.isfinite(gradient).all()):
            return new, lower, gradient
        curvature = lower - value - expected
        best = -expected / (2 * curvature) if 0 < curvature < float("inf") else 0.1
        step *= min(0.5, max(0.1, best))
    return None


def _times_inverse(v: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The approximate inverse Hessian times v, in two loops over the steps and changes that are remembered."""
    shares = []
    for s, y in reversed(pairs):
        shares.append((s @ v) / (s @ y))
        v = v - shares[-1] * y
    if pairs:
        s, y = pairs[-1]
        v = v * ((s @ y) / (y @ y))
    for (s, y), share in zip(pairs, reversed(shares), strict=True):
        v = v + (share - (y @ v) / (s @ y)) * s
    return v
