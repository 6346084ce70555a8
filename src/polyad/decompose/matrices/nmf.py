"""Products of two non-negative matrices."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.decompose.alternating.extrapolation import alternate, balance_components, random_factors, unit
from polyad.decompose.alternating.mttkrp import mttkrp_sweep
from polyad.decompose.alternating.nonnegative_updates import ACCELERATED, SOLVERS, check_signs, check_update
from polyad.decompose.alternating.sparse_entries import Entries
from polyad.formats import LowRank


@method(
    "decompose",
    makes=LowRank,
    example={"rank": 2},
    papers=(
        Paper(
            "Lee, Seung",
            1999,
            "Learning the parts of objects by non-negative matrix factorization",
            "doi:10.1038/44565",
        ),
        ACCELERATED,
        Paper(
            "Ang, Gillis",
            2019,
            "Accelerating Nonnegative Matrix Factorization Algorithms Using Extrapolation",
            "doi:10.1162/neco_a_01157",
            adds="extrapolation between sweeps, taken back where the error grows",
        ),
    ),
)
def nmf(
    x: Tensor,
    rank: int,
    *,
    update: Literal["hals", "mu"] = "hals",
    max_iter: int = 200,
    stop: float = 1e-8,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> LowRank:
    """A product of two matrices without negative entries, close to x in the Frobenius norm.

    x has shape (*batch, n, m), or is one sparse COO matrix (n, m), which is not densified. Negative entries are
    allowed with ``update="hals"`` and refused with "mu", the multiplicative updates, which are slower in almost
    every case.

    A sweep takes two products with x, 4 r numel(x) operations (or entries, where x is sparse), and for each factor
    eight updates of all components at r² multiplications and additions a row. Sweeps end after ``max_iter``, or when
    two in a row change the relative squared error by no more than ``stop`` in all matrices; the factors of least
    error are returned. That error is a difference, exact to about the root of the dtype's epsilon.
    ``callback(sweep, max_iter, {"error": …})`` gets the least so far, the root of the mean over the batch.

    The factors have x's dtype, half precision being computed in float32; a column of the left one and its row of the
    right one have equal norms. Not differentiable: x is detached. The start is uniform, from ``generator`` (None:
    always the same).

    Raises ValueError for a rank beyond the matrix, and for NaN and infinities.

    >>> fit = nmf(torch.tensor([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 3.0]]), 2)
    >>> fit.to_dense().round(decimals=2).abs()
    tensor([[1., 2., 0.],
            [2., 4., 0.],
            [0., 0., 3.]])
    """
    _check.iterations(max_iter, stop)
    shape = _check_arguments(x, rank, update)
    lead, x = x.shape[:-2], x.detach()
    wide = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
    if x.layout == torch.sparse_coo:
        x = x.coalesce()
        values = _check.finite("x.values()", x.values()).to(wide)
        if not bool(values.any()):
            return LowRank(values.new_zeros(shape[0], rank).to(x.dtype), values.new_zeros(rank, shape[1]).to(x.dtype))
        work, scale = unit(values.unsqueeze(0))
        products = Entries(x.indices(), work[0], shape, rank).sweep
    else:
        work, scale = unit(_check.finite("x", x).to(wide).reshape(-1, *shape).contiguous())
        products = partial(mttkrp_sweep, work)
    start = random_factors(shape, rank, len(work), work, generator, signed=False)
    solve, keep = SOLVERS[update]
    factors, _ = alternate(products, solve, start, keep=keep, max_iter=max_iter, stop=stop, callback=callback)
    alive = work.flatten(1).any(1).view(-1, 1, 1)
    left, right = balance_components([factor * alive for factor in factors], scale)
    return LowRank(left.to(x.dtype).reshape(*lead, *left.shape[1:]), right.mT.to(x.dtype).reshape(*lead, rank, -1))


def _check_arguments(x: Tensor, rank: int, update: str) -> tuple[int, int]:
    """Refuse wrong arguments; the shape of one matrix."""
    _check.dimensions("x", _check.floating("x", x, sparse=True), 2)
    n, m = x.shape[-2:]
    _check.rank(rank, min(n, m), f"what a matrix of shape {(n, m)} has")
    if x.layout not in (torch.strided, torch.sparse_coo) or (x.is_sparse and (x.ndim > 2 or x.dense_dim())):
        raise ValueError(f"x of layout {x.layout} and shape {tuple(x.shape)} must be dense or one sparse COO matrix")
    check_update(update)
    check_signs(update, x.coalesce().values() if x.is_sparse else x)
    return n, m
