"""From spectra to ranks: rules that say how much to keep of a mode, by tolerance, energy, elbow or budget.

A spectrum is a vector of squared singular values, largest first, as ``mode_spectra`` gives one a mode. A budget of
numbers over all modes of a Tucker decomposition is ``polyad.decompose.core_shapes``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad.linalg import left_singular, near_unit, unfold


def mode_spectra(x: Tensor) -> list[Tensor]:
    """The squared singular values of every unfolding of x (I₁, …, I_N), relative to ``‖x‖²``; float64, (I_n,) each.

    Each costs 2 I_n numel(x) operations and an eigenvalue problem of size I_n. Zero for a zero tensor.

    >>> [s.tolist() for s in mode_spectra(torch.diag(torch.tensor([2.0, 1.0])))]
    [[0.8, 0.2], [0.8, 0.2]]
    """
    x, _ = near_unit(_check.floating("x", x).detach(), x.ndim)
    found: list[Tensor] = []
    for mode, n in enumerate(x.shape):
        squares = left_singular(unfold(x, mode).double(), n, exact=True)[1].square()
        found.append(squares / squares.sum().clamp_min(torch.finfo(torch.float64).tiny))
    return found


def by_tolerance(spectrum: Tensor, tol: float) -> int:
    """The least rank that leaves a relative error (a root of squares) of at most ``tol``.

    >>> by_tolerance(torch.tensor([9.0, 0.9, 0.1]), 0.2)
    2
    """
    _check.tolerance(tol)
    left = _left(spectrum)
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


def _left(spectrum: Tensor) -> Tensor:
    """What is left of the squares from each rank on."""
    return _vector(spectrum).flip(0).cumsum(0).flip(0)
