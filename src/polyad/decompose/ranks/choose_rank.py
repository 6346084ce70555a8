"""Ranks from spectra, by tolerance, energy, elbow or budget.

A spectrum is a vector of squared singular values, largest first, as ``mode_spectra`` and ``bond_spectra`` give them.
``choose_rank`` applies one rule to all spectra of a format.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyad import _check
from polyad.decompose.ranks.core_shapes import core_shapes
from polyad.decompose.ranks.spectra import bond_spectra, mode_spectra


def choose_rank(
    x: Tensor,
    format: str,
    *,
    tol: float | None = None,
    energy: float | None = None,
    elbow: bool | None = None,
    budget: int | None = None,
) -> int | tuple[int, ...]:
    """Ranks for ``st_hosvd`` and ``hooi`` ("tucker"), ``tt_svd`` ("tt") or ``cp_als`` ("cp"), by exactly one rule.

    ``tol`` bounds the relative Frobenius error and ``energy`` is the least share of the squares that is kept: both
    hold for "tucker" and "tt", each of whose N modes or N - 1 bonds may lose an equal part. ``elbow=True`` ends every
    spectrum where it bends; ``budget`` is how many numbers may be stored.

    No spectrum tells the rank of a sum of outer products. For "cp", tol, energy and elbow give the largest that the
    rule gives to any mode, below which no such sum comes near x, but which may not suffice: ``cp_als(x, tol=…)``
    searches. A budget gives the largest rank that it holds.

    For "tt", a budget goes to one bond after another, to that whose next singular value is most for the numbers that
    it costs. x has shape (I₁, …, I_N), N >= 2. Costs that of the spectra.

    >>> x = torch.outer(torch.ones(4), torch.ones(5))[..., None] * torch.ones(6)
    >>> choose_rank(x, "tucker", tol=1e-3), choose_rank(x, "tt", energy=0.9), choose_rank(x, "cp", budget=40)
    ((1, 1, 1), (1, 1), 2)
    """
    _check.finite("x", _check.dimensions("x", _check.floating("x", x), 2))
    _check.exactly_one(tol=tol, energy=energy, elbow=elbow or None, budget=budget)
    if format not in ("tucker", "tt", "cp"):
        raise ValueError(f"format={format!r} is not known; choose from tucker, tt, cp")
    if budget is not None:
        return _ranks_in_budget(x, format, budget)
    spectra = bond_spectra(x) if format == "tt" else mode_spectra(x)
    parts = 1 if format == "cp" else len(spectra)
    if elbow:
        ranks = tuple([by_elbow(s) for s in spectra])
    else:
        error = tol if tol is not None else max(0.0, 1 - _check.share("energy", energy or 0.0)) ** 0.5
        ranks = tuple([by_tolerance(s, _check.tolerance(error) / parts**0.5) for s in spectra])
    return max(ranks) if format == "cp" else ranks


def _ranks_in_budget(x: Tensor, format: str, budget: int) -> int | tuple[int, ...]:
    shape = tuple(x.shape)
    if format == "tucker":
        return core_shapes(x, budget)
    if format == "cp":
        cost, limit = sum(shape) + 1, math.prod(shape) // max(shape)
        return min(limit, by_budget(torch.ones(limit), budget, cost))
    if budget < sum(shape):
        raise ValueError(f"budget={budget} does not hold a train of ranks of one, which stores {sum(shape)} numbers")
    spectra, ranks = bond_spectra(x), [1] * (len(shape) - 1)

    def storage(ranks: list[int]) -> int:
        return sum(a * n * b for a, n, b in zip((1, *ranks), shape, (*ranks, 1), strict=True))

    while True:
        tried: list[tuple[float, int]] = []
        for bond, r in enumerate(ranks):
            more = storage([*ranks[:bond], r + 1, *ranks[bond + 1 :]])
            if r < len(spectra[bond]) and more <= budget:
                tried.append((float(spectra[bond][r]) / (more - storage(ranks)), bond))
        if not tried or max(tried)[0] <= 0:
            return tuple(ranks)
        ranks[max(tried)[1]] += 1


def by_tolerance(spectrum: Tensor, tol: float) -> int:
    """The least rank that leaves a relative error (a root of squares) of at most ``tol``.

    >>> by_tolerance(torch.tensor([9.0, 0.9, 0.1]), 0.2)
    2
    """
    _check.tolerance(tol)
    left = _remaining_squares(spectrum)
    return max(1, int((left > tol**2 * left[0]).sum()))


def by_energy(spectrum: Tensor, share: float) -> int:
    """The least rank that keeps this share of the squares.

    >>> by_energy(torch.tensor([9.0, 0.9, 0.1]), 0.9)
    1
    """
    _check.share("share", share)
    return by_tolerance(spectrum, max(0.0, 1 - share) ** 0.5 * (1 + 1e-9) if share < 1 else 0.0)


def by_elbow(spectrum: Tensor) -> int:
    """The rank after which the spectrum is farthest below the line from its first to its last value, in logarithms.

    A spectrum without an elbow, one that is a straight line, has rank one; values below rounding count as equal.

    >>> by_elbow(torch.tensor([10.0, 9.0, 8.0, 1e-6, 0.9e-6, 0.8e-6]))
    3
    """
    s = _vector(spectrum)
    if len(s) < 3 or float(s[0]) == 0:
        return 1
    heights = (s / s[0]).clamp_min(torch.finfo(torch.float64).eps ** 2).log()
    line = torch.linspace(float(heights[0]), float(heights[-1]), len(s), dtype=torch.float64)
    below = line - heights
    deepest = int(below.argmax())
    return max(1, deepest) if float(below[deepest]) > 1e-9 else 1


def by_budget(spectrum: Tensor, budget: int, cost: int) -> int:
    """The largest rank of which ``cost`` numbers each fit into the budget, and no more than there is to keep.

    >>> by_budget(torch.tensor([9.0, 0.9, 0.0]), budget=100, cost=30)
    2
    """
    if budget < cost:
        raise ValueError(f"budget={budget} does not hold one term of {cost} numbers")
    return max(1, min(budget // cost, int((_vector(spectrum) > 0).sum())))


def _vector(spectrum: Tensor) -> Tensor:
    if spectrum.ndim != 1 or not len(spectrum):
        raise ValueError(f"spectrum has shape {tuple(spectrum.shape)}; a vector of squared singular values is needed")
    return _check.finite("spectrum", spectrum.detach()).double()


def _remaining_squares(spectrum: Tensor) -> Tensor:
    """The squares that remain from each rank on."""
    return _vector(spectrum).flip(0).cumsum(0).flip(0)
