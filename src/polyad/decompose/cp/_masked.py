"""Sums of outer products fitted to the entries that a mask shows: starts compete, the best is refined."""

from __future__ import annotations

from functools import partial

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.decompose.alternating.extrapolation import alternate, random_factors, unit
from polyad.decompose.alternating.mttkrp import mttkrp_sweep
from polyad.decompose.alternating.seen_entries import least_squares_rows

_TRIAL = 40
"""Sweeps after which starts are compared."""
_SETTLED = 1e-4
"""Of ``stop``, the share of ‖x‖² that two sweeps in a row must not gain for the last refinement to end."""


def complete(
    x: Tensor,
    mask: Tensor,
    rank: int,
    restarts: int,
    *,
    ridge: float,
    stop: float,
    max_iter: int,
    generator: Generator,
    callback: Callback | None = None,
) -> tuple[list[Tensor], Tensor]:
    """Fit x (b, …), zero where the mask (b, …) hides; rows (b, 1, rank, I_n), to be multiplied by the norms (b,).

    Of ``restarts`` random starts each tensor's best goes on; none is tried once what is left is rounding.
    """
    work, norm = unit(x)
    work = work.double()
    mask_sweep, products = partial(mttkrp_sweep, mask.double()), partial(mttkrp_sweep, work)
    shape, enough = tuple(x.shape[1:]), (30 * torch.finfo(x.dtype).eps) ** 2
    best = random_factors(shape, rank, len(x), work, generator, signed=True)
    least = work.new_full((len(x),), torch.inf)
    for _ in range(restarts):
        start = random_factors(shape, rank, len(x), work, generator, signed=True)
        solve = least_squares_rows(len(shape), ridge)
        factors, left = alternate(
            products, solve, start, keep=None, max_iter=min(_TRIAL, max_iter), stop=stop, mask_sweep=mask_sweep
        )
        better = left < least
        best = [torch.where(better.view(-1, 1, 1), new, old) for new, old in zip(factors, best, strict=True)]
        least = torch.minimum(left, least)
        if bool((least <= max(enough, stop)).all()):
            break
    solve = least_squares_rows(len(shape), ridge, warm=True)
    best, _ = alternate(
        products, solve, best, keep=None, max_iter=max_iter, stop=_SETTLED * stop, callback=callback,
        mask_sweep=mask_sweep,
    )  # fmt: skip
    alive = work.flatten(1).any(1).view(-1, 1, 1)
    return [(factor * alive).unsqueeze(1) for factor in best], norm
