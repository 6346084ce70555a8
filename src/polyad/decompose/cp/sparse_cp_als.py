"""Alternating least squares for sparse tensors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.decompose.alternating.extrapolation import (
    EXTRAPOLATION,
    alternate,
    balance_components,
    random_factors,
    unit,
)
from polyad.decompose.alternating.seen_entries import apply_mask, least_squares_rows
from polyad.decompose.alternating.sparse_entries import Entries, seen_entries
from polyad.decompose.cp._arguments import check_rank_or_tol
from polyad.decompose.cp._tolerance_rank import search_rank
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
    rank: int | None = None,
    *,
    tol: float | None = None,
    mask: Tensor | Literal["stored"] | None = None,
    max_iter: int = 100,
    stop: float = 1e-8,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> CP:
    """A canonical polyadic approximation of a sparse tensor; entries that are not stored are zeros.

    x is a sparse COO tensor of shape (I₁, …, I_N) with N ≥ 2 and nnz entries, duplicates being added up; a dense
    one is made sparse first. It is one tensor: there are no batch dimensions. ``tol`` instead of a rank looks for a
    small one whose relative Frobenius error is at most that, by growing ranks and then bisection.

    ``mask="stored"`` takes the entries that are not stored as missing. Or ``mask`` is a tensor of bools in x's shape,
    dense or sparse COO: entries where it is True were seen, as zeros if x does not store them; the others are not
    read, NaN included. Errors are then those of entries seen, each row has normal equations of its own, and a sweep
    takes about (R + 1) / 2 times as long. Rows without any entry seen come out as zero.

    Each sweep solves for every factor in turn by least squares, N R nnz multiplications and additions a mode. x is
    never densified, and no temporary of nnz rows of R numbers is made: entries are sorted once a mode, and a block
    of them at a time gathers, multiplies and adds up. Memory beyond the factors: about N (4 N + itemsize) bytes an
    entry. Iterations end after ``max_iter`` sweeps, or when two in a row change the relative squared error by no
    more than ``stop``; the factors of least error are returned. That error is a difference, exact to about the
    root of the dtype's epsilon. ``callback(sweep, max_iter, {"error": …})`` gets the least so far.

    The factors have x's dtype, half precision being computed in float32, and equal norms in all modes; no weights.
    Not differentiable: x is detached. The start is normal, from ``generator`` (None: always the same). Local minima
    exist; several starts are several calls.

    Raises ValueError for NaN and infinities among entries seen, for a rank that no tensor of this shape needs, numel
    / max(I_n), unless one of rank and tol is given, and for a mask of another dtype or shape or that hides all.

    >>> index = torch.tensor([[0, 1, 2], [3, 1, 0], [0, 2, 2]])
    >>> x = torch.zeros(5, 4, 3).index_put(tuple(index), torch.tensor([3.0, 2.0, 1.0])).to_sparse()
    >>> fit = sparse_cp_als(x, 3)
    >>> fit.rank, bool((fit.to_dense() - x).norm() < 1e-3)
    (3, True)
    """
    _check.iterations(max_iter, stop)
    x = _prepare(x, rank, tol, mask)
    shape = tuple(x.shape)
    whole = mask is None or x.values().numel() == x.numel()  # a mask that hides nothing is none
    half = x.dtype not in (torch.float32, torch.float64)
    if not bool(x.values().any()):
        return CP(tuple([x.values().new_zeros(n, rank or 1) for n in shape]))
    values, scale = unit(x.values().unsqueeze(0).to(torch.float32 if half else x.dtype))
    left = scale.new_ones(1)

    def fit(r: int) -> CP:
        entries, mask_sweep, solve = Entries(x.indices(), values[0], shape, r), None, least_squares
        if not whole:
            ones, solve = torch.ones_like(values[0]), least_squares_rows(len(shape))
            mask_sweep = Entries(x.indices(), ones, shape, r * (r + 1) // 2).sweep
        start = random_factors(shape, r, 1, values, generator, signed=True)
        factors, square = alternate(
            entries.sweep, solve, start, keep=None, max_iter=max_iter, stop=stop, callback=callback,
            mask_sweep=mask_sweep,
        )  # fmt: skip
        left.copy_(square)
        return CP(tuple([factor[0].to(x.dtype) for factor in balance_components(factors, scale)]))

    if rank is not None:
        return fit(rank)
    assert tol is not None
    # the squared error is a difference of numbers up to 1: what it may be off counts against the tolerance
    off = 64 * torch.finfo(values.dtype).eps + torch.finfo(x.dtype).eps ** 2
    fibres = _fibres(x)
    return search_rank(
        fit, lambda: _fibre_terms(x, *fibres), fibres[1].shape[1], tol, lambda _: float(left + off) ** 0.5
    )


def _prepare(x: Tensor, rank: int | None, tol: float | None, mask: Tensor | str | None) -> Tensor:
    """Check the arguments; the entries that count, coalesced and finite, in the dtype that x has."""
    shape = check_rank_or_tol(x, rank, tol, sparse=True)
    if x.layout == torch.strided:
        dense = mask if isinstance(mask, Tensor) and not mask.is_sparse else None
        x = apply_mask(x, dense)[0].detach().to_sparse()
    if x.layout != torch.sparse_coo or x.dense_dim():
        raise ValueError(f"x has layout {x.layout} and {x.dense_dim()} dense dimensions; give x.to_sparse_coo()")
    x = x.detach().coalesce()
    if isinstance(mask, Tensor):
        return seen_entries(x, mask)
    if mask not in (None, "stored"):
        raise ValueError(f"mask={mask!r} is not known; give 'stored', or a tensor of bools in x's shape {shape}")
    _check.finite("x.values()", x.values())
    return x


def _fibres(x: Tensor) -> tuple[int, Tensor, Tensor]:
    """The mode whose fibres with entries are fewest, their places in the other modes, and each entry's fibre."""
    choices = []
    for mode in range(x.ndim):
        others = torch.cat((x.indices()[:mode], x.indices()[mode + 1 :]))
        choices.append((mode, *torch.unique(others, dim=1, return_inverse=True)))
    return min(choices, key=lambda one: one[1].shape[1])


def _fibre_terms(x: Tensor, mode: int, places: Tensor, fibre: Tensor) -> CP:
    """x as the sum of its fibres along one mode, each times unit vectors."""
    values = x.values()
    count = torch.arange(places.shape[1], device=values.device)
    factors = [values.new_zeros(n, places.shape[1]) for n in x.shape]
    factors[mode][x.indices()[mode], fibre] = values
    for place, other in zip(places, [m for m in range(x.ndim) if m != mode], strict=True):
        factors[other][place, count] = 1
    return CP(tuple(factors))


def least_squares(_factor: Tensor, product: Tensor, v: Tensor) -> Tensor:
    """The factor (b, R, I) that solves ``V A = product``; the shortest one where V is singular."""
    tiny = 1e-13 if v.dtype == torch.float64 else 1e-9
    inverse = torch.linalg.pinv(v.double(), rtol=tiny * v.shape[-1], hermitian=True)
    return inverse.to(product.dtype) @ product
