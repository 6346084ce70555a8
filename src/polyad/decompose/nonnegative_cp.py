"""Sums of non-negative outer products."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.decompose._alternating import EXTRAPOLATION, Callback, alternate, balanced, uniform, unit
from polyad.decompose._mttkrp import sweep
from polyad.decompose._nonnegative import ACCELERATED, SOLVERS
from polyad.formats import CP


@method(
    "decompose",
    makes=CP,
    example={"rank": 2},
    papers=(
        Paper(
            "Cichocki, Phan",
            2009,
            "Fast Local Algorithms for Large Scale Nonnegative Matrix and Tensor Factorizations",
            "doi:10.1587/transfun.E92.A.708",
        ),
        ACCELERATED,
        EXTRAPOLATION,
    ),
)
def nonnegative_cp(
    x: Tensor,
    rank: int,
    *,
    batch: int = 0,
    update: Literal["hals", "mu"] = "hals",
    max_iter: int = 200,
    stop: float = 1e-8,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> CP:
    """A sum of ``rank`` outer products of vectors without negative entries, close to x in the Frobenius norm.

    x has shape (*batch dimensions, I₁, …, I_N) with N ≥ 2; ``batch`` says how many dimensions lead. Negative
    entries of x are allowed with ``update="hals"`` (the sum stays non-negative) and refused with "mu", the
    multiplicative updates, which are slower in almost every case.

    A sweep takes two matrix products with x whatever N is, 4 R numel(x) operations, and in each mode eight updates
    of all components for R² I_n multiplications and additions each. Sweeps end after ``max_iter``, or when two in a
    row change the relative squared error by no more than ``stop`` in all tensors; factors of the least error are
    returned. That error is a difference, exact to about the root of the dtype's epsilon. ``callback(sweep,
    max_iter, {"error": …})`` gets the least so far, the root of the mean over the batch.

    The factors have x's dtype, half precision being computed in float32, and equal norms in all modes; no weights.
    Not differentiable: x is detached. The start is uniform, from ``generator`` (None: always the same).

    Departs from Ang et al. in that steps are taken back to the factors before they were moved on, for all modes at
    once, and in a fixed number of updates per factor.

    Raises ValueError for NaN and infinities, and for a rank that no tensor of this shape needs, numel / max(I_n).

    >>> planted = CP(tuple(torch.arange(1.0, 1 + 2 * n).reshape(n, 2) % 5 for n in (4, 5, 6)))
    >>> found = nonnegative_cp(planted.to_dense(), 2)
    >>> error = (found.to_dense() - planted.to_dense()).norm() / planted.to_dense().norm()
    >>> bool(error < 1e-2), all(bool((factor >= 0).all()) for factor in found.factors)
    (True, True)
    """
    shape = _checked(x, rank, batch, update)
    half = x.dtype not in (torch.float32, torch.float64)
    work, scale = unit(x.detach().to(torch.float32 if half else x.dtype).reshape(-1, *shape).contiguous())
    start = uniform(shape, rank, len(work), work, generator, signed=False)
    solve, keep = SOLVERS[update]
    found = alternate(partial(sweep, work), solve, start, keep=keep, max_iter=max_iter, stop=stop, callback=callback)
    alive = work.flatten(1).any(1).view(-1, 1, 1)
    factors = balanced([factor * alive for factor in found], scale)
    return CP(tuple([f.to(x.dtype).reshape(*x.shape[:batch], *f.shape[1:]) for f in factors]))


def _checked(x: Tensor, rank: int, batch: int, update: str) -> tuple[int, ...]:
    """The shape of one tensor."""
    _check.floating("x", x)
    _check.finite("x", _check.batch(batch, x, 2))
    shape = tuple(x.shape[batch:])
    _check.rank(rank, math.prod(shape) // max(shape), f"what a tensor of shape {shape} can need")
    if update not in ("hals", "mu"):
        raise ValueError(f"update={update!r} is neither 'hals' nor 'mu'")
    if update == "mu" and bool((x < 0).any()):
        raise ValueError("x has negative entries, which update='mu' cannot treat; use update='hals'")
    return shape
