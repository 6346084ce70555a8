"""The canonical form of a sum of outer products, its size, and the test for terms that cancel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyad.decompose.cp._newton import balance_terms
from polyad.formats import CP
from polyad.linalg import near_unit
from polyad.linalg.higher_order import squared_norms

CANCELS = 100.0  # Σ‖terms‖² above this multiple of ‖x‖² …
COLLINEAR = -0.97  # … with two terms at an angle of this cosine or below is called degenerate


def norms(x: Tensor) -> Tensor:
    """Frobenius norms (batch,) of x (batch, …), accumulated in float64.

    >>> norms(torch.ones(2, 3, 3))
    tensor([3., 3.], dtype=torch.float64)
    """
    if x.is_complex():
        return squared_norms(x, 1).sqrt()
    total = x.new_zeros(len(x), dtype=torch.float64)
    for part in x.flatten(1).split(max(1, (1 << 20) // len(x)), dim=1):
        row = part.double().unsqueeze(1)
        total += (row @ row.mT).view(-1)
    return total.sqrt()


def bring_near_unit(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scale x (batch, …) near unit size where it is far from it; x, its norms, and what it was divided by.

    The norm of a zero tensor is given as 1. Refuses NaN and infinities.
    """
    x, divided = near_unit(x, x.ndim - 1)
    norm = norms(x)
    scale = torch.ones_like(norm) if divided is None else divided.double()
    return x, torch.where(norm > 0, norm, 1), scale


def canonical_form(rows: list[Tensor], size: Tensor, lead: tuple[int, ...], dtype: torch.dtype) -> CP:
    """The unique form of rows (batch, 1, rank, I_n) times ``size`` (batch,), as a CP.

    Columns have norm 1, weights descend from the largest and are not negative, and the entry of greatest magnitude
    is positive in the columns of every factor but the last.
    """
    unit = CP(tuple([row.squeeze(1).mT for row in balance_terms(rows)])).normalize()
    weights = unit.weights
    assert weights is not None
    order = weights.real.argsort(dim=-1, descending=True, stable=True)
    factors = []
    for factor in unit.factors:
        ordered = factor.gather(2, order.unsqueeze(-2).expand_as(factor)).to(dtype)
        factors.append(ordered.contiguous().reshape(*lead, *ordered.shape[1:]))
    weights = weights.gather(1, order) * size.unsqueeze(-1)
    return CP(tuple(factors), weights.to(dtype).reshape(*lead, -1))


def terms_cancel(rows: list[Tensor]) -> Tensor:
    """True for tensors of the batch whose terms outgrow the sum by far and nearly cancel in pairs; x has norm 1."""
    grams = [(row.conj() @ row.mT).squeeze(1) for row in rows]
    inner = torch.stack(grams).prod(0).real
    size = inner.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    cosines = inner / (size.unsqueeze(-1) * size.unsqueeze(-2)).clamp(min=1e-300)
    return (size.square().sum(-1) > CANCELS) & (cosines.flatten(1).amin(1) < COLLINEAR)


def fibre_terms(x: Tensor) -> list[Tensor]:
    """x (batch, I₁, …, I_N) as a sum of its fibres along the longest mode: rows (batch, 1, ΠI/max I, I_n)."""
    sizes = x.shape[1:]
    long = max(range(len(sizes)), key=lambda mode: sizes[mode])
    others = [mode for mode in range(len(sizes)) if mode != long]
    count = math.prod(sizes[mode] for mode in others)
    place = torch.arange(count, device=x.device)
    wide = torch.promote_types(x.dtype, torch.float64)
    rows: dict[int, Tensor] = {long: x.movedim(long + 1, -1).reshape(len(x), 1, count, -1).to(wide)}
    for mode in reversed(others):
        one = torch.nn.functional.one_hot(place % sizes[mode], sizes[mode]).to(wide)
        rows[mode], place = one.expand(len(x), 1, -1, -1), place // sizes[mode]
    return [rows[mode] for mode in range(len(sizes))]
