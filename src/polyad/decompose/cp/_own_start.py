"""Sums of outer products refined from a start that the caller brings, with modes whose factors stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from polyad import _check
from polyad.decompose.alternating.own_start import check_init
from polyad.formats import CP

Refine = Callable[[list[Tensor]], list[Tensor]]


def check_start(
    x: Tensor, rank: int | None, tol: float | None, batch: int, init: CP | None, fixed: Sequence[int]
) -> int | None:
    """Refuse starts that do not fit x or the rank, and modes that cannot stay. Returns the rank, None without any."""
    check_init(x, batch, init, fixed, CP)
    if init is None:
        return rank
    if tol is not None:
        raise ValueError(f"tol={tol} was given with init, whose rank is taken; give one of them")
    _check.rank(init.rank, max(init.rank, 1), "init", "init.rank")
    if rank is not None and rank != init.rank:
        raise ValueError(f"rank={rank} is not that of init, {init.rank}; give one of them, or the same")
    return init.rank


def refine_start(init: CP, size: Tensor, fixed: Sequence[int], dtype: torch.dtype, refine: Refine) -> CP:
    """The sum of ``size`` (b,) times what ``refine`` makes of the rows (b, R, I_n) of ``init`` / size, in this dtype.

    Weights and size go into the first factor that does not stay; where all do, ``init`` comes back.
    """
    free = [mode for mode in range(len(init.factors)) if mode not in fixed]
    if not free:
        return CP(tuple([f.detach().to(dtype) for f in init.factors]), _cast(init.weights, dtype))
    lead = init.factors[0].shape[:-2]
    wide = torch.promote_types(dtype, torch.float64)
    rows = [factor.detach().to(wide).reshape(len(size), *factor.shape[-2:]).mT for factor in init.factors]
    first = free[0]
    if init.weights is not None:
        rows[first] = rows[first] * init.weights.detach().to(wide).reshape(len(size), -1, 1)
    rows[first] = rows[first] / size.view(-1, 1, 1)
    refined = refine([row.contiguous() for row in rows])
    factors: list[Tensor] = []
    for mode, row in enumerate(refined):
        scaled = row * size.view(-1, 1, 1) if mode == first else row
        factor = init.factors[mode].detach() if mode in fixed else scaled.mT.reshape(*lead, *scaled.mT.shape[1:])
        factors.append(factor.to(dtype).contiguous())
    return CP(tuple(factors))


def _cast(weights: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if weights is None else weights.detach().to(dtype)
