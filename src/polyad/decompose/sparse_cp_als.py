"""Alternating least squares for sparse tensors."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.decompose._alternating import EXTRAPOLATION, Callback, alternate, balanced, uniform, unit
from polyad.decompose._entries import Entries
from polyad.formats import CP


@method(
    "decompose",
    makes=CP,
    example={"rank": 2},
    papers=(
        Paper(
            "Bader, Kolda",
            2007,
            "Efficient MATLAB computations with sparse and factored tensors",
            "doi:10.1137/060676489",
        ),
        Paper(
            "Smith, Ravindran, Sidiropoulos, Karypis",
            2015,
            "SPLATT: Efficient and Parallel Sparse Tensor-Matrix Multiplication",
            "doi:10.1109/IPDPS.2015.27",
            adds="entries in an order of their own for each mode, so that sums run over neighbours",
        ),
        EXTRAPOLATION,
    ),
)
def sparse_cp_als(
    x: Tensor,
    rank: int,
    *,
    max_iter: int = 100,
    stop: float = 1e-8,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> CP:
    """A canonical polyadic approximation of a sparse tensor; entries that are not stored are zeros.

    x is a sparse COO tensor of shape (I₁, …, I_N) with N ≥ 2 and nnz entries, duplicates being added up; a dense
    one is made sparse first. It is one tensor: there are no batch dimensions. For missing entries see ``gcp``.

    Each sweep solves for every factor in turn by least squares, N R nnz multiplications and additions a mode. x is
    never densified, and no temporary of nnz rows of R numbers is made: entries are sorted once a mode, and a block
    of them at a time gathers, multiplies and adds up. Memory beyond the factors: about N (4 N + itemsize) bytes an
    entry. Iterations end after ``max_iter`` sweeps, or when two in a row change the relative squared error by no
    more than ``stop``; the factors of least error are returned. That error is a difference, exact to about the
    root of the dtype's epsilon. ``callback(sweep, max_iter, {"error": …})`` gets the least so far.

    The factors have x's dtype, half precision being computed in float32, and equal norms in all modes; no weights.
    Not differentiable: x is detached. The start is normal, from ``generator`` (None: always the same). Local minima
    exist; several starts are several calls.

    Raises ValueError for NaN and infinities, and for a rank that no tensor of this shape needs, numel / max(I_n).

    >>> index = torch.tensor([[0, 1, 2], [3, 1, 0], [0, 2, 2]])
    >>> x = torch.zeros(5, 4, 3).index_put(tuple(index), torch.tensor([3.0, 2.0, 1.0])).to_sparse()
    >>> found = sparse_cp_als(x, 3)
    >>> found.rank, bool((found.to_dense() - x).norm() < 1e-3)
    (3, True)
    """
    x = _prepared(x, rank)
    half = x.dtype not in (torch.float32, torch.float64)
    if not bool(x.values().any()):
        return CP(tuple([x.values().new_zeros(n, rank) for n in x.shape]))
    values, scale = unit(x.values().unsqueeze(0).to(torch.float32 if half else x.dtype))
    entries = Entries(x.indices(), values[0], tuple(x.shape), rank)
    start = uniform(tuple(x.shape), rank, 1, values, generator, signed=True)
    found = alternate(entries.sweep, least_squares, start, keep=None, max_iter=max_iter, stop=stop, callback=callback)
    return CP(tuple([factor[0].to(x.dtype) for factor in balanced(found, scale)]))


def _prepared(x: Tensor, rank: int) -> Tensor:
    """Coalesced, floating, finite; half precision keeps its dtype here."""
    _check.floating("x", x)
    shape = tuple(x.shape)
    _check.dimensions("x", x, 2)
    _check.rank(rank, math.prod(shape) // max(shape), f"what a tensor of shape {shape} can need")
    if x.layout == torch.strided:
        x = x.detach().to_sparse()
    if x.layout != torch.sparse_coo or x.dense_dim():
        raise ValueError(f"x has layout {x.layout} and {x.dense_dim()} dense dimensions; give x.to_sparse_coo()")
    x = x.detach().coalesce()
    _check.finite("x.values()", x.values())
    return x


def least_squares(_factor: Tensor, product: Tensor, v: Tensor) -> Tensor:
    """The factor (b, R, I) that solves ``V A = product``; the shortest one where V is singular."""
    tiny = 1e-13 if v.dtype == torch.float64 else 1e-9
    inverse = torch.linalg.pinv(v.double(), rtol=tiny * v.shape[-1], hermitian=True)
    return inverse.to(product.dtype) @ product
