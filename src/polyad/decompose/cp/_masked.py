"""Sums of outer products fitted to the entries that a mask shows: starts compete, the best is refined."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from polyad.decompose.alternating.extrapolation import alternate, random_factors, unit
from polyad.decompose.alternating.mttkrp import khatri_rao, mttkrp_sweep
from polyad.decompose.alternating.seen_entries import least_squares_rows
from polyad.decompose.cp._search import Search
from polyad.decompose.cp._whole import fit_whole

_TRIAL = 40
"""Sweeps after which starts are compared."""
_ONE = 15
"""Sweeps for each outer product of a start that is built of one after another."""
_WARM = 1e-6
"""The ridge, as a share of the rows' matrices, that starts begin with which know something of x."""
_RIDGES = (3e-3, 3e-2)
"""The ridges that random starts begin with, in turn. A larger one holds huge terms back for longer, and loses weak
components for good: at 0.3 those of a tenth of the strongest."""


def complete(
    x: Tensor,
    mask: Tensor,
    rank: int,
    search: Search,
) -> tuple[list[Tensor], Tensor]:
    """Fit x (b, …), zero where the mask (b, …) hides; rows (b, 1, rank, I_n), to be multiplied by the norms (b,).

    The first start is the fit of x with the zeros, the second one outer product after another, ``restarts`` more are
    random; each tensor's best goes on, and none is tried once the worst leaves at most ``stop`` of ‖x‖².
    """
    work, norm = unit(x)
    work = work.double()
    shape, enough = tuple(x.shape[1:]), (30 * torch.finfo(x.dtype).eps) ** 2
    sweeps = partial(
        alternate, partial(mttkrp_sweep, work), keep=None, mask_sweep=partial(mttkrp_sweep, mask.double())
    )
    stop, generator = search.stop, search.generator
    best, least = [work.new_zeros(len(x), rank, n) for n in shape], work.new_full((len(x),), torch.inf)
    for number in range(search.restarts + 2):
        first = _WARM
        if number == 0:
            start = fit_whole(
                work, torch.ones_like(norm), rank, replace(search, restarts=1, max_iter=0, callback=None)
            )
            start = [factor.squeeze(1) for factor in start]
        elif number == 1:
            start = _one_after_another(work, mask, rank, search)
        else:
            start = random_factors(shape, rank, len(x), work, generator, signed=True)
            first = _RIDGES[number % len(_RIDGES)]
        solve = least_squares_rows(len(shape), search.ridge, first=first)
        factors, left = sweeps(solve, start, max_iter=min(_TRIAL, search.max_iter), stop=stop)
        better = (left < least) | (number == 0)
        best = [torch.where(better.view(-1, 1, 1), new, old) for new, old in zip(factors, best, strict=True)]
        least = torch.minimum(left, least)
        if bool((least <= max(enough, stop)).all()):
            break
    solve = least_squares_rows(len(shape), search.ridge, first=0.0)
    best, _ = sweeps(solve, best, max_iter=search.max_iter, stop=stop, callback=search.callback, relative=True)
    alive = work.flatten(1).any(1).view(-1, 1, 1)
    return [(factor * alive).unsqueeze(1) for factor in best], norm


def _one_after_another(x: Tensor, mask: Tensor, rank: int, search: Search) -> list[Tensor]:
    """Factors (b, rank, I_n) of outer products, each fitted to what those before it leave of the entries seen."""
    shape, terms = tuple(x.shape[1:]), []
    for _ in range(rank):
        term, _ = alternate(
            partial(mttkrp_sweep, x),
            least_squares_rows(len(shape), search.ridge, first=_WARM),
            random_factors(shape, 1, len(x), x, search.generator, signed=True),
            keep=None, max_iter=_ONE, stop=search.stop, mask_sweep=partial(mttkrp_sweep, mask.double()),
        )  # fmt: skip
        terms.append(term)
        x = x - mask * khatri_rao(term).view_as(x)
    return [torch.cat(parts, 1) for parts in zip(*terms, strict=True)]
