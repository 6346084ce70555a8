"""Alternating least squares for sums of Tucker terms, many starts and tensors at once.

Shapes: x (batch, q_1, …, q_N), cores (starts, batch, K, r_1, …, r_N), factors[n] (starts, batch, K, q_n, r_n).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.decompose.alternating.row_squares import has_converged, solve_rows, solve_squares
from polyad.einsum import contract, symbol

_WARM = 40
"""Sweeps after which the best of several starts goes on alone."""
_ROUNDING = 1e-14
"""Relative errors of about this size are rounding."""


def random_terms(
    x: Tensor, rank: tuple[int, ...], terms: int, starts: int, generator: Generator
) -> tuple[Tensor, list[Tensor]]:
    """Random orthonormal factors (starts, batch, K, q_n, r_n) and cores (starts, batch, K, …)."""
    lead = (starts, len(x), terms)
    factors = [
        torch.linalg.qr(torch.randn(*lead, q, r, generator=generator, dtype=torch.float64).to(x.device))[0]
        for q, r in zip(x.shape[1:], rank, strict=True)
    ]
    return torch.randn(*lead, *rank, generator=generator, dtype=torch.float64).to(x.device), factors


def sweep_terms(
    x: Tensor,
    lost: Tensor,
    core: Tensor,
    factors: list[Tensor],
    max_iter: int,
    stop: float,
    callback: Callback | None,
) -> tuple[Tensor, list[Tensor]]:
    """Sweep over all starts, then over the best of each tensor; core (batch, K, …), factors (batch, K, q_n, r_n)."""
    before, chosen = torch.full_like(lost, torch.inf), False
    for sweep in range(max_iter):
        core, factors = _sweep(x, core, factors)
        squares = (x - _dense(core, factors)).square().flatten(2).sum(-1) + lost  # (starts, batch)
        error = squares.amin(0).sqrt()
        if callback is not None:
            callback(sweep, max_iter, {"error": float(error.max())})
        if chosen and has_converged(before, error, stop, _ROUNDING):
            break
        before = error
        if not chosen and (sweep + 1 >= _WARM or bool((error <= 8 * _ROUNDING).all())):
            core, factors, chosen = (
                _keep_best(core, squares),
                [_keep_best(factor, squares) for factor in factors],
                True,
            )
    if not chosen:
        squares = (x - _dense(core, factors)).square().flatten(2).sum(-1)
        core, factors = _keep_best(core, squares), [_keep_best(factor, squares) for factor in factors]
    return core[0], [factor[0] for factor in factors]


def _keep_best(part: Tensor, squares: Tensor) -> Tensor:
    """Keep the start of least error for each tensor, (1, batch, …)."""
    return part[squares.argmin(0), torch.arange(part.shape[1], device=part.device)].unsqueeze(0)


def _times(x: Tensor, matrix: Tensor, mode: int) -> Tensor:
    """The mode product of x (S, B, K, …) with a matrix (S, B, K, m, n) of its own for each term."""
    moved = x.movedim(mode + 3, -1)
    return (moved.flatten(3, -2) @ matrix.mT).unflatten(3, moved.shape[3:-1]).movedim(-1, mode + 3)


def _dense(core: Tensor, factors: list[Tensor], but: int | None = None) -> Tensor:
    """The terms' sum, or with a mode left out all terms."""
    for mode, factor in enumerate(factors):
        core = core if mode == but else _times(core, factor, mode)
    return core.sum(2) if but is None else core


def _sweep(x: Tensor, core: Tensor, factors: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    factors = list(factors)
    for mode, factor in enumerate(factors):
        others = _dense(core, factors, but=mode).movedim(mode + 3, 3).flatten(4)  # (S, B, K, r, rest)
        target = x.movedim(mode + 1, 1).flatten(2)
        old = factor.transpose(2, 3).flatten(3)  # (S, B, q, K r)
        solution = solve_rows(others.flatten(2, 3).mT, None, target, old, 0.0)
        factors[mode], turn = torch.linalg.qr(solution.unflatten(-1, factor.shape[2::2]).transpose(2, 3))
        core = _times(core, turn, mode)
    return _cores(x, core, factors), factors


def _cores(x: Tensor, old: Tensor, factors: list[Tensor]) -> Tensor:
    """The least-squares cores of all terms, given their factors."""
    lead, n = old.shape[:2], len(factors)
    right = x.unsqueeze(1).expand(*lead, old.shape[2], *x.shape[1:])
    for mode, factor in enumerate(factors):
        right = _times(right, factor.mT, mode)
    s, b, k, other = (symbol(i) for i in range(4))
    ours, theirs = [symbol(4 + i) for i in range(n)], [symbol(4 + n + i) for i in range(n)]
    grams = [torch.einsum("sbkqr,sblqt->sbkrlt", factor, factor) for factor in factors]
    inputs = ",".join(f"{s}{b}{k}{r}{other}{t}" for r, t in zip(ours, theirs, strict=True))
    gram = contract(f"{inputs}->{s}{b}({k}{''.join(ours)})({other}{''.join(theirs)})", *grams)
    solution = solve_squares(gram, right.flatten(2).unsqueeze(-2), old.flatten(2).unsqueeze(-2))
    return solution.reshape(*lead, *old.shape[2:])
