"""Damped Gauss-Newton steps on all factors at once: many small tensors and many starts in one loop."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyad.decompose.alternating.mttkrp import hadamard, khatri_rao
from polyad.linalg.modes import halfway

LARGEST = 512  # unknowns of one tensor, above which a step's Cholesky factorisation outweighs what it saves
ENTRIES = 1 << 25  # numbers in all normal matrices together
LAST = 100  # times ``enough``: what the last step may gain, since the next would gain some thousandths of that


def is_small(x: Tensor, starts: int, rank: int) -> bool:
    """True where the normal matrices of tensors x (batch, I₁, …, I_N) are small enough for these steps."""
    unknowns = rank * sum(x.shape[1:])
    return unknowns <= LARGEST and len(x) * starts * (unknowns**2 + x[0].numel()) <= ENTRIES


def levenberg(
    x: Tensor, factors: list[Tensor], *, max_iter: int, stop: float, ridge: float, enough: Tensor
) -> tuple[list[Tensor], Tensor]:
    """Levenberg-Marquardt steps for ``‖x - Σ_r ∘ₙ factors[n]‖² + ridge Σₙ ‖factors[n]‖²``.

    x is (batch, I₁, …, I_N) of about unit norm in float64, factors are (batch, starts, rank, I_n). Returns the
    factors and the squared errors (batch, starts). A tensor is done when none of its starts gains more than ``stop``
    of its error, or the best is below ``enough`` by a step that gained little more; the others go on without it.
    Damping starts with the residual's norm, so that steps from a good start converge quadratically.
    """
    whole = balance_terms(factors)
    half = halfway(x.shape[1:])
    target = x.unsqueeze(1).reshape(len(x), 1, math.prod(x.shape[1 : half + 1]), -1)
    errors, rest = _error(target, whole, half, ridge)
    active = torch.arange(len(x), device=x.device)
    factors, error, damping = list(whole), errors.clone(), (1e-3 * errors.sqrt()).clamp(1e-12, 1e-3)
    going = torch.ones_like(active, dtype=torch.bool)
    for _ in range(max_iter):
        if not bool(going.any()):
            break
        if not bool(going.all()):  # finished tensors leave
            active, target, error, rest, damping = (t[going] for t in (active, target, error, rest, damping))
            factors = [factor[going] for factor in factors]
        step = _step(rest, factors, damping, ridge)
        trial = [factor + change for factor, change in zip(factors, step, strict=True)]
        trial_error, trial_rest = _error(target, trial, half, ridge)
        better = trial_error < error
        gain = torch.where(better, error - trial_error, 0)
        near = better & (gain <= stop * trial_error)
        factors = [torch.where(better[..., None, None], b, a) for a, b in zip(factors, trial, strict=True)]
        rest, error = torch.where(better[..., None, None], trial_rest, rest), torch.where(better, trial_error, error)
        damping = torch.where(better, damping / 10, damping * 8).clamp(min=1e-12)
        least, best = error.min(1)
        done = (least <= enough[active]) & (gain.gather(1, best[:, None]).squeeze(1) <= LAST * enough[active])
        going = (~near & (damping < 1e6)).any(1) & ~done
        errors[active] = error
        for out, factor in zip(whole, factors, strict=True):
            out[active] = factor
    return whole, errors - _penalty(whole, ridge)


def balance_terms(factors: list[Tensor]) -> list[Tensor]:
    """Share each term's norm evenly among its vectors; terms that vanish stay as they are."""
    sizes = torch.stack([factor.norm(dim=-1) for factor in factors])
    mean = sizes.clamp(min=1e-150).log().mean(0).exp()
    scale = torch.where((sizes > 1e-150).all(0), mean / sizes.clamp(min=1e-150), 1)
    return [factor * one.unsqueeze(-1) for factor, one in zip(factors, scale, strict=True)]


def _error(target: Tensor, factors: list[Tensor], half: int, ridge: float) -> tuple[Tensor, Tensor]:
    rest = target - khatri_rao(factors[:half]).mT @ khatri_rao(factors[half:])
    return rest.square().sum((-2, -1)) + _penalty(factors, ridge), rest


def _penalty(factors: list[Tensor], ridge: float) -> Tensor | float:
    return ridge * sum(factor.square().sum((-2, -1)) for factor in factors) if ridge else 0.0


def _step(rest: Tensor, factors: list[Tensor], damping: Tensor, ridge: float) -> list[Tensor]:
    lead, rank = factors[0].shape[:2], factors[0].shape[2]
    sizes = [factor.shape[-1] for factor in factors]
    normal, gradient = _normal_matrix(factors), _gradient(rest.reshape(*lead, *sizes), factors)
    if ridge:
        gradient = gradient - ridge * torch.cat([factor.flatten(2) for factor in factors], 2)
    diagonal = normal.diagonal(dim1=-2, dim2=-1)
    diagonal += ridge + damping.unsqueeze(-1) * diagonal.mean(-1, keepdim=True) + 1e-14
    lower, info = torch.linalg.cholesky_ex(normal)
    step = torch.cholesky_solve(gradient.unsqueeze(-1), lower).squeeze(-1)
    step = torch.where((info == 0).unsqueeze(-1), step, 0.0)
    return [part.unflatten(2, (rank, -1)) for part in step.split([rank * n for n in sizes], 2)]


def _gradient(rest: Tensor, factors: list[Tensor]) -> Tensor:
    """Half of the negative gradient, (batch, starts, rank ΣI_n): the residual times all factors but one."""
    n = len(factors)
    parts = []
    for mode in range(n):
        unfolded = rest.movedim(2 + mode, 2).flatten(3)
        parts.append(khatri_rao([factors[i] for i in range(n) if i != mode]) @ unfolded.mT)
    return torch.cat([part.flatten(2) for part in parts], 2)


def _normal_matrix(factors: list[Tensor]) -> Tensor:
    """JᵀJ of the sum of outer products, (batch, starts, p, p) with p = rank ΣI_n; blocks above the diagonal unset."""
    n, lead, rank = len(factors), factors[0].shape[:2], factors[0].shape[2]
    grams = [factor @ factor.mT for factor in factors]
    ones = torch.ones_like(grams[0])
    starts = [0]
    for factor in factors:
        starts.append(starts[-1] + rank * factor.shape[-1])
    normal = factors[0].new_empty(*lead, starts[-1], starts[-1])
    for a in range(n):
        rows = slice(starts[a], starts[a + 1])
        for b in range(a + 1):
            common = hadamard([ones, *(gram for i, gram in enumerate(grams) if i not in (a, b))])
            columns = slice(starts[b], starts[b + 1])
            if a == b:
                eye = torch.eye(factors[a].shape[-1]).to(ones)
                block = common[..., :, None, :, None] * eye[:, None, :]
            else:  # entry (r, i), (s, j): common[r, s] · factors[a][s, i] · factors[b][r, j]
                right = (common.unsqueeze(-1) * factors[b].unsqueeze(3)).unsqueeze(3)  # (r, 1, s, j)
                block = right * factors[a].mT[..., None, :, :, None]
            normal[..., rows, columns] = block.reshape(*lead, rows.stop - rows.start, columns.stop - columns.start)
    return normal
