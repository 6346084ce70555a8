"""Pieces that transforms share: moments of zeros, their decays, and gradients as matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def moment_dtype(param: Tensor) -> torch.dtype:
    """The dtype of a parameter's moments: float32, or float64 for parameters of float64."""
    return torch.promote_types(param.dtype, torch.float32)


def zeros(param: Tensor, *shape: int) -> Tensor:
    """Zeros of a parameter's shape, or of another, in the dtype of its moments."""
    return torch.zeros(shape or param.shape, dtype=moment_dtype(param), device=param.device)


def check_betas(betas: Sequence[float], name: str = "betas") -> None:
    """Refuse decays that are not from 0 up to, but not, 1."""
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"{name}={tuple(betas)} must be from 0 up to, but not, 1")


def matrix_sides(param: Tensor) -> tuple[int, int]:
    """The shorter and the longer side of a parameter as a matrix of its first dimension by the rest."""
    rows = param.shape[0] if param.ndim else 1
    sides = rows, param.numel() // max(rows, 1)
    return min(sides), max(sides)


def wide_matrix(x: Tensor) -> Tensor:
    """A gradient as a matrix (n, m), n ≤ m: its first dimension by the rest, or the transpose; a view."""
    flat = x.flatten(1)
    return flat.mT if flat.shape[0] > flat.shape[1] else flat


def shaped_as(matrix: Tensor, param: Tensor) -> Tensor:
    """The inverse of ``wide_matrix``: a matrix (n, m), n ≤ m, in a parameter's shape."""
    rows = param.shape[0]
    return (matrix.mT if rows > param.numel() // rows else matrix).reshape(param.shape)
