"""The spectra of a tensor: squared singular values of its unfoldings, by which ranks are chosen."""

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
    spectra: list[Tensor] = []
    for mode, n in enumerate(x.shape):
        squares = left_singular(unfold(x, mode).double(), n, exact=True)[1].square()
        spectra.append(squares / squares.sum().clamp_min(torch.finfo(torch.float64).tiny))
    return spectra


def bond_spectra(x: Tensor) -> list[Tensor]:
    """The squared singular values of x (I₁, …, I_N) cut in two after each mode but the last, relative to ``‖x‖²``.

    >>> [s.tolist() for s in bond_spectra(torch.diag(torch.tensor([2.0, 1.0])))]
    [[0.8, 0.2]]
    """
    x, _ = near_unit(_check.floating("x", x).detach(), x.ndim)
    spectra: list[Tensor] = []
    for cut in range(1, x.ndim):
        matrix = x.double().flatten(cut).flatten(0, cut - 1)
        matrix = matrix if len(matrix) <= matrix.shape[1] else matrix.mT
        squares = left_singular(matrix, len(matrix), exact=True)[1].square()
        spectra.append(squares / squares.sum().clamp_min(torch.finfo(torch.float64).tiny))
    return spectra
