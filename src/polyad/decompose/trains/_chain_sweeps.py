"""Sweeps over the cores of a chain, a train or a ring, each with the tensor contracted with all other cores.

Cores are (b, r, I, s) in float64; a train's outer bonds are of size one. Tensors are (b, numbers).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from polyad.linalg.modes import halfway

Renew = Callable[[int, Tensor], None]


def sweep_cores(x: Tensor, cores: list[Tensor], renew: Renew, *, backwards: bool = False) -> None:
    """Call ``renew(n, w)`` for each core in order, w (b, r, I, s) being x contracted with all other cores.

    ``renew`` may change ``cores[n]`` in place of the list, and its bonds; later visits see it. x is read twice, for
    the two halves of the chain, 2 r_0 r ΠI operations each; all that follows works on what is left of it.
    """
    if len(cores) == 1:
        renew(0, x.unflatten(-1, (1, -1, 1)))
        return
    middle = halfway([core.shape[-2] for core in cores])
    matrix = x.unflatten(-1, (math.prod([core.shape[-2] for core in cores[:middle]]), -1))

    def half(low: int, high: int) -> None:
        others = chain(cores[middle:] if low == 0 else cores[:middle])  # from the bond at high around to that at low
        outer, inner = others.shape[-3], others.shape[-1]
        taken = (matrix if low == 0 else matrix.mT) @ others.to(x.dtype).transpose(-3, -2).flatten(-2)
        w = taken.unflatten(-1, (outer, inner)).permute(0, 3, 1, 2)
        _visit(w, cores, low, high, renew, backwards)

    for span in _in_order((0, middle), (middle, len(cores)), backwards):
        half(*span)


def _in_order(first: Any, second: Any, backwards: bool) -> tuple[Any, Any]:
    return (second, first) if backwards else (first, second)


def _visit(w: Tensor, cores: list[Tensor], low: int, high: int, renew: Renew, backwards: bool) -> None:
    """The cores from ``low`` to ``high``, w (b, r, their modes, s) being the tensor without all others."""
    if high - low == 1:
        renew(low, w)
        return
    middle = low + halfway([core.shape[-2] for core in cores[low:high]])

    def first() -> None:
        others = chain(cores[middle:high]).to(w.dtype).flatten(-2)
        left = w.flatten(-2).unflatten(-1, (-1, others.shape[-1])).flatten(-3, -2) @ others.mT
        _visit(left.unflatten(-2, (w.shape[-3], -1)), cores, low, middle, renew, backwards)

    def second() -> None:
        others = chain(cores[low:middle]).to(w.dtype).flatten(-3, -2)
        right = others.mT @ w.flatten(-3, -2).unflatten(-2, (others.shape[-2], -1)).flatten(-2)
        _visit(right.unflatten(-1, (-1, w.shape[-1])), cores, middle, high, renew, backwards)

    for half in _in_order(first, second, backwards):
        half()


def chain(cores: Sequence[Tensor]) -> Tensor:
    """Neighbouring cores as one, (b, r, all their modes, s)."""
    whole = cores[0]
    for core in cores[1:]:
        whole = whole.flatten(-3, -2) @ core.flatten(-2)
        whole = whole.unflatten(-1, core.shape[-2:]).unflatten(-3, (cores[0].shape[-3], -1)).flatten(-3, -2)
    return whole


def misfit(x: Tensor, cores: Sequence[Tensor]) -> Tensor:
    """The Frobenius norm (b,) of x less the closed chain, from their difference, in x's dtype."""
    if len(cores) == 1:
        return torch.linalg.vector_norm(x - cores[0].flatten(1).to(x.dtype), dim=-1, dtype=torch.float64)
    middle = halfway([core.shape[-2] for core in cores])
    left, right = chain(cores[:middle]), chain(cores[middle:])
    left = left.transpose(-3, -2).flatten(-2).to(x.dtype)  # (b, modes, r_0 r)
    right = right.permute(0, 3, 1, 2).flatten(1, 2).to(x.dtype)
    off = x.unflatten(-1, (left.shape[-2], -1)) - left @ right
    return torch.linalg.vector_norm(off.flatten(1), dim=-1, dtype=torch.float64)
