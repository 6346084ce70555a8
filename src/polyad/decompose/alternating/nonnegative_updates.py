"""Updates of one non-negative factor, by components or entry by entry, and the checks of their arguments."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from polyad._card import Paper
from polyad.decompose.alternating.seen_entries import apply_row_matrices, hals_rows

ACCELERATED = Paper(
    "Gillis, Glineur",
    2012,
    "Accelerated Multiplicative Updates and Hierarchical ALS Algorithms for Nonnegative Matrix Factorization",
    "doi:10.1162/NECO_a_00256",
    adds="updates by component, several of a factor for one product with the tensor",
)


def hals(inner: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Hierarchical least squares: a solver that sets each component in turn to its best, ``inner`` times over.

    A component becomes ``max(0, (productᵣ - Σ_{s≠r} V_rs aₛ) / V_rr)``. One that vanishes would stay at zero in all
    modes for good, so it gets back a trace of the factor's size.
    """

    def solve(factor: Tensor, product: Tensor, v: Tensor) -> Tensor:
        diagonal = v.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
        inverse = torch.where(diagonal > 0, 1 / diagonal, 0)
        weights = -(v * inverse)
        weights.diagonal(dim1=-2, dim2=-1).zero_()
        a, aims = factor.clone(), (product * inverse).unsqueeze(2).unbind(1)
        rows, weights = a.unsqueeze(2).unbind(1), weights.unsqueeze(2).unbind(1)
        for _ in range(inner):
            for row, aim, weight in zip(rows, aims, weights, strict=True):
                torch.clamp(torch.baddbmm(aim, weight, a), min=0, out=row)
        return _revive_components(a)

    return solve


def multiplicative(inner: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """A solver that multiplies entries by ``product / (V a)``, ``inner`` times; products below zero count as zero."""

    def solve(factor: Tensor, product: Tensor, v: Tensor) -> Tensor:
        a, product = factor, product.clamp(min=0)
        tiny = torch.finfo(a.dtype).tiny
        for _ in range(inner):
            a = a * (product / apply_row_matrices(v, a).clamp_(min=tiny))
        return _revive_components(a)

    return solve


def _revive_components(a: Tensor) -> Tensor:
    """Give components that vanished a trace of the factor's size."""
    size = a.sum(2, keepdim=True)
    trace = torch.finfo(a.dtype).eps * size.mean(1, keepdim=True) / a.shape[2]
    return torch.where(size > 0, a, trace)


SOLVERS = {"hals": (hals(8), 0.0), "mu": (multiplicative(8), 0.1)}
"""Updates by name, and the share of an entry that extrapolation leaves: what is zero stays zero under products."""

ROW_SOLVERS = {"hals": (hals_rows(8), 0.0), "mu": (multiplicative(8), 0.1)}
"""The same where entries are missing, so that each row has a matrix of its own."""


def check_update(update: str) -> None:
    """Refuse names of updates that do not exist."""
    if update not in SOLVERS:
        raise ValueError(f"update={update!r} is not known; choose 'hals' or 'mu'")


def check_signs(update: str, values: Tensor) -> None:
    """Refuse negative entries of x where the updates are multiplicative."""
    if update == "mu" and bool((values < 0).any()):
        raise ValueError("x has negative entries, which update='mu' cannot treat; use update='hals'")
