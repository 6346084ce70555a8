"""Products, entry by entry, of low-rank matrices near a given one."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import method
from polyad.decompose.alternating.row_squares import has_converged, solve_rows
from polyad.decompose.matrices.masked_als import LU, prepare, relative_errors
from polyad.formats import Hadamard

Factors = list[tuple[Tensor, Tensor]]

_RIDGE, _DECAY, _SWEEPS = 0.16, 0.95, 120
"""The start's first ridge in units of the root of the count of entries, its decay a sweep, and its sweeps."""


@method("decompose", makes=Hadamard, example={"x": (7, 6), "rank": 2, "starts": 2, "max_iter": 100}, papers=(LU,))
def hadamard_als(
    x: Tensor,
    rank: int | tuple[int, ...],
    *,
    mask: Tensor | None = None,
    ridge: float = 0.0,
    starts: int = 4,
    generator: Generator | None = None,
    max_iter: int = 500,
    stop: float = 1e-4,
    callback: Callback | None = None,
) -> Hadamard:
    """``(U₁ V₁) * (U₂ V₂) * …`` near the entries of x that ``mask`` marks as seen, by alternating least squares.

    x has shape (*batch, n, m). ``rank`` gives the rank of each factor; one number r stands for (r, r), which reaches
    matrices of rank r² with 2 r (n + m) numbers. With all other factors fixed, the rows of one solve small weighted
    systems, so no half sweep raises the objective; mask, ridge, end and callback are those of ``masked_als``.

    There are many local minima, and from random factors nearly every run ends in one. So a start is drawn and led
    down from a ridge so strong that it nearly extinguishes the product, a continuation that the paper does not have;
    of ``starts`` such runs (all at once, as one batch) the best goes on. Exactly planted factors are found mostly,
    not always, and less often in small matrices (half of those of 12 by 10 and rank 2): more starts find more.
    ``generator`` draws them; none stands for a fixed seed. Everything is computed in float64.

    Cost of a sweep: about n m r² operations for each factor, times ``starts`` in the 120 sweeps of the start.

    >>> g = torch.Generator().manual_seed(0)
    >>> left, right = torch.randn(2, 30, 2, generator=g), torch.randn(2, 2, 25, generator=g)
    >>> planted = Hadamard(tuple(left), tuple(right))
    >>> fit = hadamard_als(planted.to_dense(), 2, starts=8)
    >>> bool((fit.to_dense() - planted.to_dense()).norm() < 1e-4 * planted.to_dense().norm())
    True
    """
    _check.iterations(max_iter, stop)
    work, weight, scale = prepare(x, mask, ridge)
    work, weight = work.double(), None if weight is None else weight.double()  # squares of squares are solved with
    ranks = (rank, rank) if isinstance(rank, int) else tuple(rank)
    for place, r in enumerate(ranks):
        _check.rank(r, min(x.shape[-2:]), f"what a matrix of shape {tuple(x.shape[-2:])} has", f"rank[{place}]")
    if starts < 1:
        raise ValueError(f"starts={starts} is below 1; at least one start is needed")
    factors = _start(work, weight, ranks, starts, generator or Generator().manual_seed(0))
    total = work.square().sum((-2, -1))
    error = relative_errors(work, weight, _product(factors), total)
    for sweep in range(max_iter):
        factors = _sweep(work, weight, factors, ridge)
        before, error = error, relative_errors(work, weight, _product(factors), total)
        if callback is not None:
            callback(sweep, max_iter, {"error": float(error.max())})
        if has_converged(before, error, stop, torch.finfo(work.dtype).eps):
            break
    root = scale ** (0.5 / len(ranks))
    lefts = tuple([(left * root).to(x.dtype) for left, _ in factors])
    return Hadamard(lefts, tuple([(right * root).mT.contiguous().to(x.dtype) for _, right in factors]))


def _product(factors: Factors) -> Tensor:
    return math.prod(left @ right.mT for left, right in factors)  # pyright: ignore[reportReturnType]


def _sweep(x: Tensor, weight: Tensor | None, factors: Factors, ridge: float | Tensor) -> Factors:
    """One least-squares solution for each half of each factor, in turn."""
    factors = list(factors)
    products = [left @ right.mT for left, right in factors]
    for i, (left, right) in enumerate(factors):
        others = [product for j, product in enumerate(products) if j != i]
        rest = math.prod(others, start=torch.ones_like(products[i]))
        squares, target = rest.square() if weight is None else rest.square() * weight, rest * x
        left = solve_rows(right, squares, target, left, ridge)
        right = solve_rows(left, squares.mT, target.mT, right, ridge)
        factors[i], products[i] = (left, right), left @ right.mT
    return factors


def _start(x: Tensor, weight: Tensor | None, ranks: tuple[int, ...], starts: int, generator: Generator) -> Factors:
    """The best of several runs from random factors under a ridge that decays."""
    n, m = x.shape[-2:]
    lead = (starts, *x.shape[:-2])

    def normal(size: int, r: int) -> Tensor:
        return torch.randn(*lead, size, r, generator=generator, dtype=x.dtype).to(x.device) * r**-0.25

    factors = [(normal(n, r), normal(m, r)) for r in ranks]
    count = torch.full((), float(n * m)) if weight is None else weight.sum((-2, -1), keepdim=True)
    full = (_RIDGE * count.to(x).sqrt()).expand(*lead, 1, 1).clone()
    lam = full
    total = x.square().sum((-2, -1), keepdim=True)
    total = total.where(total > 0, 1)
    for _ in range(_SWEEPS):
        factors = _sweep(x, weight, factors, lam)
        product = _product(factors)
        masked = product if weight is None else product * weight
        size = (masked.square().sum((-2, -1), keepdim=True) / total).sqrt()
        # nothing comes back from zero: a product about to vanish is lifted, and its ridge let go of faster
        low = size < 0.3
        lift = torch.where(low, (0.5 / size.clamp(min=1e-12)) ** (0.5 / len(ranks)), 1)
        factors = [(left * lift, right * lift) for left, right in factors]
        lam = (lam * torch.where(low, 0.85, _DECAY)).clamp(min=1e-7)
    error = relative_errors(x, weight, _product(_sweep(x, weight, factors, 0.0)), total.squeeze(-1).squeeze(-1))
    best = error.argmin(0)
    return [tuple(_select_best(part, best) for part in pair) for pair in factors]  # pyright: ignore[reportReturnType]


def _select_best(x: Tensor, best: Tensor) -> Tensor:
    """Select x[best[b], b] for every place b of the batch."""
    index = best.reshape(1, *best.shape, 1, 1).expand(1, *x.shape[1:])
    return x.gather(0, index).squeeze(0)
