"""Sums of Tucker terms by alternating least squares."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.decompose.tucker._block_sweeps import random_terms, sweep_terms
from polyad.formats import BlockTerm
from polyad.linalg import near_unit
from polyad.linalg.higher_order import higher_order_svd


@method(
    "decompose",
    makes=BlockTerm,
    example={"x": (6, 5, 4), "rank": (2, 1, 2), "starts": 2, "max_iter": 100},
    papers=(
        Paper(
            "De Lathauwer, Nion",
            2008,
            "Decompositions of a Higher-Order Tensor in Block Terms, Part III: Alternating Least Squares Algorithms",
            "doi:10.1137/070690730",
        ),
    ),
)
def block_term(
    x: Tensor,
    rank: tuple[int, ...] | int,
    *,
    terms: int = 2,
    batch: int = 0,
    starts: int = 4,
    generator: Generator | None = None,
    max_iter: int = 500,
    stop: float = 1e-4,
    callback: Callback | None = None,
) -> BlockTerm:
    """A sum of ``terms`` Tucker tensors, each of multilinear ranks ``rank``, near x: a block term decomposition.

    x has shape (I₁, …, I_N) with N ≥ 2 after ``batch`` leading dimensions that count tensors. It is first projected
    to min(terms r_n, I_n) leading singular vectors a mode, which loses nothing if it is such a sum, and everything
    after works on that small core in float64. A sweep solves for all terms' factors of one mode after the other,
    orthonormalises them, and solves for all cores. ``starts`` random starts run at once as a batch, and after 40
    sweeps the best of each tensor goes on, to ``max_iter`` sweeps or until one lowers no error by more than the
    share ``stop``. ``generator`` draws the starts; none stands for a fixed seed.

    The result has x's dtype and no gradient. Cost: N passes over x, then sweeps whose cost does not depend on its
    size. ``callback(sweep, max_iter, {"error": …})`` follows each sweep with the largest relative error of the
    batch's best. The paper starts once and works on x itself.

    Raises ValueError for ranks beyond their mode, fewer than one term or start, NaN and infinities.

    >>> planted = BlockTerm.random((8, 7, 6), generator=torch.Generator().manual_seed(0))
    >>> fit = block_term(planted.to_dense(), planted.rank, terms=2)
    >>> fit.terms, bool((fit.to_dense() - planted.to_dense()).norm() < 1e-5 * planted.to_dense().norm())
    (2, True)
    """
    _check.iterations(max_iter, stop)
    each = _check_arguments(x, rank, terms, starts, batch)
    work = (x.detach() if x.dtype in (torch.float32, torch.float64) else x.detach().float()).flatten(0, batch - 1)
    work = work if batch else x.detach().unsqueeze(0).to(work.dtype)
    axes = tuple(range(1, work.ndim))
    work, scale = near_unit(work, work.ndim - 1)
    ranks = tuple(min(terms * r, n) for r, n in zip(each, work.shape[1:], strict=True))
    small, bases = higher_order_svd(work, ranks, None, batch=1)
    small = small.double()
    total = work.double().square().sum(axes)
    size = total.sqrt().where(total > 0, 1).reshape(-1, *[1] * len(axes))
    core, factors = random_terms(small, each, terms, starts, generator or Generator().manual_seed(0))
    lost = (1 - small.square().sum(axes) / total.where(total > 0, 1)).clamp(min=0)
    core, factors = sweep_terms(small / size, lost, core, factors, max_iter, stop, callback)
    if scale is not None:
        size = size * scale.double().view_as(size)
    core = core * (size * (total > 0).view_as(size)).unsqueeze(1)  # of zeros nothing is left
    wide = [basis.double().unsqueeze(1) @ factor for basis, factor in zip(bases, factors, strict=True)]
    lead = x.shape[:batch]
    parts = [part.to(x.dtype).reshape(*lead, *part.shape[1:]) for part in (core, *wide)]
    return BlockTerm(parts[0], tuple(parts[1:]))


def _check_arguments(x: Tensor, rank: tuple[int, ...] | int, terms: int, starts: int, batch: int) -> tuple[int, ...]:
    """Refuse wrong arguments. Returns the ranks of a term, one a mode."""
    _check.floating("x", x)
    _check.finite("x", _check.batch(batch, x, 2))
    shape = tuple(x.shape[batch:])
    ranks = _check.ranks(rank, shape)
    assert ranks is not None
    for name, value in (("terms", terms), ("starts", starts)):
        if value < 1:
            raise ValueError(f"{name}={value} is below 1; give at least 1")
    return ranks
