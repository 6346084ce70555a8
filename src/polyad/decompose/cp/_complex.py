"""Sums of outer products of complex tensors: starts compete on a core, the best is refined on x."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import torch
from torch import Tensor

from polyad.decompose.alternating.extrapolation import alternate, random_factors, unit
from polyad.decompose.alternating.mttkrp import mttkrp_sweep
from polyad.decompose.cp._search import Search
from polyad.decompose.cp._start import eigenvector_starts
from polyad.linalg.higher_order import higher_order_svd
from polyad.linalg.scaling import double

_TRIAL = 60
"""Sweeps after which starts are compared."""
_ENOUGH = 1e-12
"""The squared error, of ‖x‖², below which no further start is tried."""


def fit_complex(
    x: Tensor,
    norm: Tensor,
    rank: int,
    search: Search,
) -> list[Tensor]:
    """Factors of x (b, …) / norm as rows (b, 1, rank, I_n), in complex double precision.

    x is projected onto at most ``rank`` leading singular vectors a mode. On that core a start from generalised
    eigenvectors, where two modes allow it, and random ones are refined; each tensor's best goes on.
    """
    work = double(x) / norm.view(-1, *[1] * (x.ndim - 1))
    sizes = tuple(min(rank, n) for n in x.shape[1:])
    core, bases = higher_order_svd(work, sizes, None, batch=1)
    small, share = unit(core)
    rows = _best_start(small, rank, search)
    even = share.pow(1 / len(sizes)).view(-1, 1, 1)
    rows = [row @ basis.mT * even for row, basis in zip(rows, bases, strict=True)]
    whole, size = unit(work)
    rows, _ = alternate(
        partial(mttkrp_sweep, whole), partial(_least_squares, search.ridge), rows, keep=None,
        max_iter=max(1, search.max_iter), stop=search.stop, relative=True, callback=search.callback,
    )  # fmt: skip
    back = size.pow(1 / len(sizes)).view(-1, 1, 1)
    alive = (torch.linalg.vector_norm(x.flatten(1), dim=1) > 0).view(-1, 1, 1)
    return [(row * back * alive).unsqueeze(1) for row in rows]


def _best_start(core: Tensor, rank: int, search: Search) -> list[Tensor]:
    """Factors (b, rank, n) of a core (b, …) of norm 1, each tensor's best after ``_TRIAL`` sweeps from all starts."""
    sizes, generator = tuple(core.shape[1:]), search.generator
    best: list[Tensor] = []
    least = core.real.new_full((len(core),), torch.inf)
    eigen = sum(n == rank for n in sizes) >= 2
    for place in range(search.restarts + eigen):
        if eigen and place == 0:
            start = [row.squeeze(1) for row in eigenvector_starts(core, rank, 1, generator)]
        else:
            start = random_factors(sizes, rank, len(core), core, generator, signed=True)
        rows, error = alternate(
            partial(mttkrp_sweep, core), partial(_least_squares, search.ridge), start, keep=None, max_iter=_TRIAL,
            stop=search.stop * 1e-3, relative=True,
        )  # fmt: skip
        better = error < least
        best = (
            rows if not best else [torch.where(better.view(-1, 1, 1), a, b) for a, b in zip(rows, best, strict=True)]
        )
        least = torch.minimum(error, least)
        if bool((least <= _ENOUGH).all()):
            break
    return best


def refine_rows(
    x: Tensor,
    norm: Tensor,
    fixed: Collection[int],
    search: Search,
    rows: list[Tensor],
) -> list[Tensor]:
    """Rows (b, rank, I_n) refined towards x (b, …) / norm, real or complex; those of ``fixed`` modes stay."""
    if not search.max_iter:
        return rows
    work = double(x) / norm.view(-1, *[1] * (x.ndim - 1))
    return alternate(
        partial(mttkrp_sweep, work), partial(_least_squares, search.ridge), rows, keep=None,
        max_iter=search.max_iter, stop=search.stop, relative=True, callback=search.callback, fixed=fixed,
    )[0]  # fmt: skip


def _least_squares(ridge: float, _factor: Tensor, product: Tensor, gram: Tensor) -> Tensor:
    """The factor that ``gram @ factor = product`` asks for; a hair on the diagonal keeps it finite."""
    diagonal = gram.diagonal(dim1=-2, dim2=-1).real
    hair = 4 * torch.finfo(gram.dtype).eps * diagonal.amax(-1).clamp(min=1e-290) + ridge
    matrix = gram + hair.view(-1, 1, 1) * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    solution = torch.linalg.solve_ex(matrix, product)[0]
    return solution + torch.linalg.solve_ex(matrix, product - gram @ solution)[0] if not ridge else solution
