"""Checks of the arguments that the decompositions into outer products share."""

from __future__ import annotations

import math

from torch import Tensor

from polyad import _check


def check_rank(rank: int, shape: tuple[int, ...]) -> int:
    """Refuse ranks below 1 or above numel / max(I_n), which suffices for every tensor of this shape. Returns it."""
    return _check.rank(rank, largest_rank(shape), f"what any tensor of shape {shape} has")


def check_rank_or_tol(
    x: Tensor,
    rank: int | None,
    tol: float | None,
    batch: int = 0,
    *,
    sparse: bool = False,
    complex_too: bool = False,
) -> tuple[int, ...]:
    """Refuse x, ``batch``, and all but one of a valid rank and a valid tol. Returns the shape of one tensor."""
    _check.batch(batch, _check.floating("x", x, sparse=sparse, complex_too=complex_too), 2)
    _check.exactly_one(rank=rank, tol=tol)
    shape = tuple(x.shape[batch:])
    if rank is not None:
        check_rank(rank, shape)
    if tol is not None:
        _check.tolerance(tol)
    return shape


def largest_rank(shape: tuple[int, ...]) -> int:
    """The rank that suffices for every tensor of this shape: the count of its fibres along the longest mode."""
    return math.prod(shape) // max(shape)
