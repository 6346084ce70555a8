"""Least squares over the entries that a mask shows: each row of a factor has normal equations of its own.

The matrix of a row is ``Σ_seen d dᵀ``, d the products of the other factors' rows. Its entry (r, s) is an MTTKRP of
the mask with the products ``a_r a_s`` of each factor's components. So whatever multiplies a tensor with its factors
makes these matrices too, dense or sparse; they cost (R + 1) / 2 times what the products with x do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from polyad import _check

Solve = Callable[[Tensor, Tensor, Tensor], Tensor]

_DECAY, _LAST = 0.6, 1e-6


def pairs(factor: Tensor) -> Tensor:
    """Products of components r ≤ s, (b, R (R + 1) / 2, I) for a factor (b, R, I)."""
    i, j = torch.triu_indices(factor.shape[1], factor.shape[1], device=factor.device)
    return factor[:, i] * factor[:, j]


def row_matrices(upper: Tensor, rank: int) -> Tensor:
    """The symmetric matrices (b, I, R, R) of rows whose entries r ≤ s are given, (b, R (R + 1) / 2, I)."""
    i, j = torch.triu_indices(rank, rank, device=upper.device)
    matrices = upper.new_empty(len(upper), upper.shape[2], rank, rank)
    matrices[..., i, j] = upper.mT
    matrices[..., j, i] = upper.mT
    return matrices


def apply_row_matrices(v: Tensor, factor: Tensor) -> Tensor:
    """``V A`` for one matrix (b, R, R) of all rows, or one of each (b, I, R, R); A is (b, R, I)."""
    return v @ factor if v.ndim == 3 else (v @ factor.mT.unsqueeze(-1)).squeeze(-1).mT


def least_squares_rows(modes: int, ridge: float = 0.0, *, first: float = 3e-3) -> Solve:
    """A solver for the minimum of each row, to be called mode after mode; rows of which nothing was seen become zero.

    Few entries a row are fitted by huge terms that cancel where something was seen and nowhere else, and sweeps do
    not come back from there. So a ridge starts at ``first`` of the mean diagonal of the rows' matrices, shrinks by
    ``_DECAY`` a sweep of ``modes`` calls, and stays at ``_LAST``; 0 is none from the outset. A large one makes weak
    components vanish, and these do not come back either. ``ridge`` comes on top of it.
    """
    calls = 0

    def solve(_factor: Tensor, product: Tensor, v: Tensor) -> Tensor:
        nonlocal calls
        share = max(first * _DECAY ** (calls // modes), _LAST) if first else 0.0
        calls += 1
        diagonal = v.diagonal(dim1=-2, dim2=-1)
        tiny = torch.finfo(v.dtype).tiny
        hair = 64 * torch.finfo(v.dtype).eps * diagonal.amax((1, 2)).clamp(min=tiny)
        added = (share * diagonal.mean((1, 2)) + hair + ridge)[:, None, None, None]
        lower = torch.linalg.cholesky_ex(v + added * torch.eye(v.shape[-1], dtype=v.dtype, device=v.device)).L
        return torch.cholesky_solve(product.mT.unsqueeze(-1), lower).squeeze(-1).mT.contiguous()

    return solve


def hals_rows(inner: int) -> Solve:
    """A solver that sets each component in turn to its non-negative best, ``inner`` times over."""

    def solve(factor: Tensor, product: Tensor, v: Tensor) -> Tensor:
        diagonal = v.diagonal(dim1=-2, dim2=-1).mT
        inverse = torch.where(diagonal > 0, 1 / diagonal, 0)
        a = factor.clone()
        for _ in range(inner):
            for r in range(a.shape[1]):
                slope = product[:, r] - (v[:, :, r] * a.mT).sum(-1)
                a[:, r] = torch.where(diagonal[:, r] > 0, a[:, r] + slope * inverse[:, r], 0).clamp(min=0)
        return a

    return solve


def check_mask(mask: Tensor, x: Tensor) -> Tensor:
    """Refuse masks, dense or sparse, that are not bools in x's shape. Returns the mask."""
    if isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape == x.shape:
        return mask
    name = f"of {mask.dtype} and shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else repr(mask)
    raise ValueError(f"mask {name} must hold bools in x's shape {tuple(x.shape)}, True where x was seen")


def check_shows(any_seen: bool | Tensor) -> None:
    """Refuse masks that hide every entry."""
    if not bool(any_seen):
        raise ValueError("mask hides every entry of x; at least one must be True")


def apply_mask(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """x with zeros where the mask is False, and the mask, or None where it hides nothing.

    Refuses masks that are not bools in x's shape, that hide everything, or that show NaN and infinities.
    """
    if mask is None:
        return x, None
    check_shows(check_mask(mask, x).any())
    if bool(mask.all()):
        return _check.finite("x", x), None
    return _check.finite("x where mask is True,", x.where(mask, 0)), mask
