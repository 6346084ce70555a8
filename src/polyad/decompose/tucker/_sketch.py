"""A Tucker approximation from a random mixture of one mode, in two passes over the tensor."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from polyad.linalg import mode_product, unfold
from polyad.linalg.higher_order import squared_norms, truncated_basis
from polyad.linalg.svd import leading_left

_MORE = 10  # entries of the mixture beyond the rank of its mode
_FIRST = 32  # entries of the mixture where the rank is not known
_LEAST = 1 << 20  # numbers from which on sketching pays
_PROMISE = 0.9  # share of the squared tolerance that is spent by what the mixture says, which is uncertain


def sketch_tucker(
    x: Tensor,
    rank: tuple[int, ...] | None,
    tol: float | None,
    batch: int,
    generator: Generator | None,
    insist: bool,
) -> tuple[Tensor, list[Tensor]] | None:
    """Core and factors of x (*batch, I₁, …, I_N), or None where it would not pay or did not come out well."""
    shape = x.shape[batch:]
    if x.is_meta or x.is_complex() or (tol is not None and tol**2 < 64 * torch.finfo(x.dtype).eps):
        return None  # ‖x‖² - ‖core‖² would not tell; mixtures are real
    if not insist and math.prod(shape) < _LEAST:
        return None
    width = [min(n, r + _MORE) for n, r in zip(shape, rank, strict=True)] if rank else [min(n, _FIRST) for n in shape]
    mixed = min((0, len(shape) - 1), key=lambda mode: width[mode] / shape[mode])
    if not insist and width[mixed] * 3 > shape[mixed]:
        return None
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    mixture = torch.randn(width[mixed], shape[mixed], generator=generator, dtype=torch.float64) / width[mixed] ** 0.5
    mixture = mixture.to(x).expand(*x.shape[:batch], *mixture.shape)
    y = mode_product(x, mixture, mixed, batch)
    return _project(x, y, mixed, rank, tol, batch)


def _project(
    x: Tensor, y: Tensor, mixed: int, rank: tuple[int, ...] | None, tol: float | None, batch: int
) -> tuple[Tensor, list[Tensor]] | None:
    """The factors of all modes but the mixed one from y, the last and the core from x."""
    n = x.ndim - batch
    total = squared_norms(x, batch)
    allowed, promised = total * (tol or 0.0) ** 2, torch.zeros_like(total)
    factors: list[Tensor] = [x] * n
    core = x
    others = [mode for mode in range(n) if mode != mixed]
    for place, mode in enumerate(others):
        unfolded = unfold(y, mode, batch)
        before = squared_norms(y, batch)
        if rank is None:
            share = (allowed * _PROMISE - promised).clamp(min=0)
            factors[mode], _ = truncated_basis(unfolded, share, n - place, tol or 0.0)
        else:
            factors[mode] = leading_left(unfolded, rank[mode])[0]
        y = mode_product(y, factors[mode].mT, mode, batch)
        promised = promised + (before - squared_norms(y, batch)).clamp(min=0)
    for mode in others if mixed else reversed(others):  # an outer mode first: one product of matrices
        core = mode_product(core, factors[mode].mT, mode, batch)
    lost = (total - squared_norms(core, batch)).clamp(min=0)
    unfolded = unfold(core, mixed, batch)
    if rank is not None:
        if bool((lost > 1.1 * promised + 64 * torch.finfo(x.dtype).eps * total).any()):
            return None
        factors[mixed] = leading_left(unfolded, rank[mixed])[0]
    else:
        if bool((lost > allowed).any()):
            return None
        factors[mixed], _ = truncated_basis(unfolded, allowed - lost, 1, tol or 0.0)
    return mode_product(core, factors[mixed].mT, mixed, batch), factors
