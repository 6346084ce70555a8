"""Weighted least squares row by row, the step of every alternating method for matrices with missing entries."""

from __future__ import annotations

import torch
from torch import Tensor


def solve_rows(design: Tensor, weight: Tensor | None, target: Tensor, old: Tensor, ridge: float | Tensor) -> Tensor:
    """Rows u_i that minimise ``Σ_j w_ij (u_i · d_j)² - 2 t_ij (u_i · d_j) + ridge |u_i|²``, d_j a row of the design.

    design (*batch, m, r), weight and target (*batch, n, m), old (*batch, n, r); no weight means ones, and a
    ridge that is a tensor (*batch, 1, 1) is one for each matrix. A hair of
    ``|u_i - old_i|²`` is added, of the rounding's size: it leaves the minimiser where there is one, keeps the old
    row where nothing says otherwise, and never lets the objective rise. One matrix product of n m r (r + 1) / 2
    multiplications and n Cholesky factorisations of r by r; without weights one for all rows.
    """
    if weight is None:
        return solve_squares(design.mT @ design, target @ design, old, ridge)
    r = design.shape[-1]
    i, j = torch.triu_indices(r, r, device=design.device)
    upper = weight @ (design[..., i] * design[..., j])
    gram = upper.new_empty((*upper.shape[:-1], r, r))
    gram[..., i, j] = upper
    gram[..., j, i] = upper
    largest = gram.diagonal(dim1=-2, dim2=-1).sum(-1).amax(-1)[..., None, None]  # of each matrix of the batch
    hair = 64 * torch.finfo(design.dtype).eps * largest.clamp(min=torch.finfo(design.dtype).tiny)
    right = target @ design + hair * old
    # a weightless row has a zero matrix, and keeps its old self by the hair alone
    gram = gram + (ridge + hair).unsqueeze(-1) * torch.eye(r, dtype=design.dtype, device=design.device)
    factor = torch.linalg.cholesky_ex(gram).L
    return torch.cholesky_solve(right.unsqueeze(-1), factor).squeeze(-1)


def solve_squares(gram: Tensor, right: Tensor, old: Tensor, ridge: float | Tensor = 0.0) -> Tensor:
    """``solve_rows`` without weights, of the design's Gram matrix (*batch, r, r) and ``right`` = target @ design."""
    hair = 64 * torch.finfo(gram.dtype).eps * gram.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    hair = hair.clamp(min=torch.finfo(gram.dtype).tiny)
    system = gram + (ridge + hair) * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.cholesky_solve((right + hair * old).mT, torch.linalg.cholesky_ex(system).L).mT


def has_converged(before: Tensor, after: Tensor, stop: float, eps: float) -> bool:
    """True where no error of a batch falls by more than the share ``stop``, or all are rounding."""
    return bool(((before - after <= stop * before) | (after <= 8 * eps)).all())
