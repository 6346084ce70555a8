"""Chains of cores of shape (*batch, r, n, s) with bonds of size one at both ends: norms, orthogonality, rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from polyad.linalg.scaling import double
from polyad.linalg.svd import needed_rank, truncated_svd

Cores = Sequence[Tensor]

_RESOLVED = 1e-6
"""Relative errors from here on are told from a float64 Gram matrix, whose noise is 1e-16 of its largest entry."""


def train_norm(cores: Cores) -> Tensor:
    """The Frobenius norm of the tensor that a train stands for, of shape (*batch).

    A QR sweep that carries its scale as a power of two: 60 cores of norm 1e8 overflow nowhere but in the result.
    """
    left, log = _triangular(cores)
    return _times_power_of_two(left[-1].flatten(-2).norm(dim=-1), log)


def orthogonalise_train(cores: Cores, centre: int) -> list[Tensor]:
    """Make the cores before ``centre`` orthonormal to the left and those behind it to the right; the tensor stays.

    The centre then carries the norm; where that is beyond the dtype's range, all cores share it evenly.
    """
    swept = list(cores)
    log = cores[0].real.new_zeros(cores[0].shape[:-3])
    for i in range(centre):
        q, r = torch.linalg.qr(swept[i].flatten(-3, -2))
        swept[i] = q.unflatten(-2, swept[i].shape[-3:-1])
        r, log = _split_scale(r, log)
        swept[i + 1] = (r @ swept[i + 1].flatten(-2)).unflatten(-1, swept[i + 1].shape[-2:])
    for i in range(len(swept) - 1, centre, -1):
        q, r = torch.linalg.qr(swept[i].flatten(-2).mT)
        swept[i] = q.mT.unflatten(-1, swept[i].shape[-2:])
        r, log = _split_scale(r, log)
        swept[i - 1] = _times(swept[i - 1], r.mT)
    return _restore_scale(swept, centre, log)


def round_train(cores: Cores, rank: Sequence[int] | None, tol: float | None) -> list[Tensor]:
    """Lower the ranks of a train to those given for each bond, or the least for a relative error of ``tol``.

    One sweep of triangular factors R from the left, one of truncated SVDs from the right. With L the cores to the
    left of a bond and A all from it on, L A = Q (R A): so R A has the singular values of the unfolding and its right
    vectors V are the new core, while A V goes on to the left neighbour. No Q is ever formed. The projections onto V
    are nested, so their squared errors add up; each may take tol/√(bonds) of what is left, and together they
    stay below tol.
    """
    left, _ = _triangular(cores[:-1])
    log = cores[0].real.new_zeros(cores[0].shape[:-3])
    swept, share = list(cores), split_error(tol, len(cores) - 1, cores[0].dtype)
    for i in range(len(cores) - 1, 0, -1):
        a = swept[i].flatten(-2)
        m = left[i] @ a
        v = right_basis(m, None if rank is None else min(rank[i - 1], *m.shape[-2:]), share)
        swept[i] = v.unflatten(-1, swept[i].shape[-2:])
        carried, log = _split_scale(a @ v.mH, log)
        swept[i - 1] = _times(swept[i - 1], carried)
    return _restore_scale(swept, 0, log)


def split_error(tol: float | None, splits: int, dtype: torch.dtype) -> float | None:
    """The relative error allowed to each of several nested projections, not below two epsilons of the dtype."""
    return None if tol is None else max(tol, 2 * torch.finfo(dtype).eps) / math.sqrt(max(1, splits))


def right_basis(m: Tensor, rank: int | None, tol: float | None) -> Tensor:
    """The leading right singular vectors, as conjugate rows (*batch, r, k), of m (*batch, n, k), up to a rotation.

    For ``tol``, and for float32, the float64 Gram matrix of the shorter side tells the rank; it resolves singular
    values down to 1e-8 of the largest. Smaller tolerances, ranks in float64 and gradients take ``truncated_svd``.
    """
    exact = m.requires_grad and torch.is_grad_enabled()
    if exact or (m.dtype in (torch.float64, torch.complex128) and (tol is None or tol < _RESOLVED)):
        return truncated_svd(m, rank, tol=tol)[2]
    x = double(m)
    wide = x.shape[-2] <= x.shape[-1]
    squares, u = torch.linalg.eigh(x @ x.mH if wide else x.mH @ x)
    if tol is not None:
        rank = int(needed_rank(squares.flip(-1).clamp(min=0).sqrt(), tol).max())
    u = u[..., u.shape[-1] - (rank or 1) :].flip(-1)
    return (torch.linalg.qr(x.mH @ u).Q if wide else u).mH.to(m.dtype)


def _triangular(cores: Cores) -> tuple[list[Tensor], Tensor]:
    """R before each core and after the last, ``R[i]`` of shape (*batch, ≤ r, r), divided by 2^log (*batch)."""
    log = cores[0].real.new_zeros(cores[0].shape[:-3])
    r = torch.ones_like(cores[0][..., :1, :1, 0])
    factors = [r]
    for core in cores:
        product = (r @ core.flatten(-2)).unflatten(-1, core.shape[-2:])
        r, log = _split_scale(_r(product.flatten(-3, -2)), log)
        factors.append(r)
    return factors, log


def _r(x: Tensor) -> Tensor:
    """R of x = Q R, up to signs. For gradients Q is held fixed: RᵀR, all that matters of R, changes as it should."""
    if x.requires_grad and torch.is_grad_enabled():
        return torch.linalg.qr(x.detach()).Q.mH @ x
    return torch.linalg.qr(x, mode="r").R


def _times(core: Tensor, x: Tensor) -> Tensor:
    """A core (*batch, r, n, s) times a matrix (*batch, s, t) on its right."""
    return (core.flatten(-3, -2) @ x).unflatten(-2, core.shape[-3:-1])


def _split_scale(x: Tensor, log: Tensor) -> tuple[Tensor, Tensor]:
    """Divide a matrix by the power of two nearest its largest entry. Returns it, and the logarithm (base 2) so "
    "far."""
    size = x.detach().abs().amax((-2, -1))
    power = torch.where(size > 0, size.log2().round(), 0)
    return _times_power_of_two(x, -power[..., None, None]), log + power


def _times_power_of_two(x: Tensor, power: Tensor) -> Tensor:
    """x times a power of two, in two steps, since the power alone may be beyond the dtype's range."""
    half = (power / 2).floor()
    return x * half.exp2() * (power - half).exp2()


def _restore_scale(cores: list[Tensor], centre: int, log: Tensor) -> list[Tensor]:
    """Multiply the centre by 2^log, or all cores evenly where the centre alone would overflow."""
    limit = 0.8 * math.log2(torch.finfo(cores[0].dtype).max)
    even = torch.where(log.abs() < limit, 0, (log / len(cores)).trunc())
    for i, core in enumerate(cores):
        power = log - even * (len(cores) - 1) if i == centre else even
        cores[i] = _times_power_of_two(core, power[..., None, None, None])
    return cores
