"""The unfolding of a tensor that is the best matrix of low rank."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from polyad.decompose.matrices.svd import svd
from polyad.einsum import symbol
from polyad.formats import Network


def unfoldings(ndim: int) -> Iterator[tuple[int, ...]]:
    """The modes that are rows in each unfolding: one mode alone, or the first few.

    >>> list(unfoldings(4))
    [(0,), (1,), (2,), (3,), (0, 1)]
    """
    singles = [(mode,) for mode in range(ndim)] if ndim > 2 else [(0,)]
    yield from singles
    yield from (tuple(range(count)) for count in range(2, ndim - 1))


def unfold_modes(x: Tensor, rows: tuple[int, ...]) -> Tensor:
    """The matrix of x with these modes as rows and all others as columns, in order."""
    columns = [mode for mode in range(x.ndim) if mode not in rows]
    return x.permute(*rows, *columns).reshape(math.prod(x.shape[mode] for mode in rows), -1)


def best_rows(x: Tensor, tolerances: list[float]) -> dict[float, tuple[int, ...]]:
    """For each tolerance the rows of the unfolding that takes the fewest numbers."""
    spectra: dict[tuple[int, ...], tuple[Tensor, int]] = {}
    for rows in unfoldings(x.ndim):
        matrix = unfold_modes(x, rows)
        wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
        energies = torch.linalg.eigvalsh((wide @ wide.mT).double()).clamp(min=0)  # ascending
        spectra[rows] = energies.cumsum(0) / energies.sum().clamp(min=1e-300), sum(matrix.shape)
    return {
        tol: min(spectra, key=lambda rows: int((spectra[rows][0] > tol**2).sum()) * spectra[rows][1])
        for tol in tolerances
    }


def unfolded_svd(x: Tensor, *, tol: float, rows: tuple[int, ...]) -> Network:
    """The truncated singular value decomposition of one unfolding, as a network of x's own shape.

    >>> x = torch.einsum("ab,c->abc", torch.eye(3), torch.arange(1.0, 5))
    >>> fit = unfolded_svd(x, tol=1e-5, rows=(2,))
    >>> fit.expression, fit.shape, bool((fit.to_dense() - x).norm() < 1e-4)
    ('cd,dab->abc', (3, 3, 4), True)
    """
    columns = [mode for mode in range(x.ndim) if mode not in rows]
    pair = svd(unfold_modes(x, rows), tol=tol)
    letters = [symbol(i) for i in range(x.ndim + 1)]
    modes, bond = letters[: x.ndim], letters[x.ndim]
    left = pair.left.reshape(*(x.shape[mode] for mode in rows), -1)
    right = pair.right.reshape(-1, *(x.shape[mode] for mode in columns))
    first, second = "".join(modes[m] for m in rows) + bond, bond + "".join(modes[m] for m in columns)
    return Network(f"{first},{second}->{''.join(modes)}", (left, right))
