"""Alternating updates of CP factors with extrapolation, for any update of a factor and any storage of the tensor.

Inside, factors are (b, R, I_n): a component is a row, so that updates by component read memory in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad._card import Paper
from polyad.decompose.alternating.mttkrp import hadamard
from polyad.decompose.alternating.seen_entries import apply_row_matrices, pairs, row_matrices
from polyad.linalg import near_unit
from polyad.linalg.higher_order import squared_norms

EXTRAPOLATION = Paper(
    "Ang, Cohen, Gillis, Hien",
    2020,
    "Accelerating block coordinate descent for nonnegative tensor factorization",
    "arXiv:2001.04321",
    adds="extrapolation between sweeps, taken back where the error grows",
)

Sweep = Callable[[list[Tensor]], Iterator[tuple[int, Tensor]]]
Solve = Callable[[Tensor, Tensor, Tensor], Tensor]

_GROW, _GROW_LIMIT, _SHRINK = 1.05, 1.01, 1.5  # of the step and of its limit, as in the paper's experiments
_ROUNDING = 1e-16  # of ‖x‖²: the error is a difference, and knows no less


def alternate(
    sweep: Sweep,
    solve: Solve,
    factors: list[Tensor],
    *,
    keep: float | None,
    max_iter: int,
    stop: float,
    callback: Callback | None = None,
    mask_sweep: Sweep | None = None,
    relative: bool = False,
    fixed: Collection[int] = (),
) -> tuple[list[Tensor], Tensor]:
    """Update the factors in turn; those of least error on the way, and its square (b,). Tensors have norm 1 (or 0).

    ``sweep(factors)`` yields (mode, MTTKRP) in turn, each with the factors as they are when it is asked for;
    ``solve(factor, product, gram)`` improves one factor. ``keep`` is None where signs are free, else the share of a
    non-negative entry that moving on leaves at least. After an update a factor is moved on along its change; where
    the error has grown by that, the tensor goes back to the factors before the move and its step shrinks (Ang,
    Cohen, Gillis, Hien 2020). The error costs nothing: it comes with the last mode's product.

    Where entries are missing, they are zero in the tensor and ``mask_sweep`` is the sweep of the mask. Then ``gram``
    has a matrix a row, (b, I_n, R, R), and the error is that of the entries seen. Two sweeps in a row that change the
    squared error by at most ``stop``, of ‖x‖² or, where ``relative``, of itself, are the last. Factors of
    the modes in ``fixed`` stay.
    """
    b = len(factors[0])
    plain, hat = list(factors), list(factors)  # before and after moving on
    step, limit, before = (factors[0].real.new_full((b,), value).double() for value in (0.5, 1.0, math.inf))
    best, least, calm = list(factors), before, 0
    for iteration in range(max_iter):
        grams = [gram(factor) for factor in hat] if mask_sweep is None else [pairs(factor) for factor in hat]
        weights = None if mask_sweep is None else mask_sweep(grams)
        after = before
        for mode, product in sweep(hat):
            if weights is None:
                v = hadamard([g for other, g in enumerate(grams) if other != mode])
            else:
                v = row_matrices(next(weights)[1], hat[mode].shape[1])
            new = plain[mode] if mode in fixed else solve(hat[mode], product, v)
            if iteration and mode not in fixed:  # the first change is from the start, which is arbitrary
                moved = torch.lerp(plain[mode], new, 1 + step.to(new.dtype).view(b, 1, 1))
                hat[mode] = moved if keep is None else torch.maximum(moved, keep * new)
            else:
                hat[mode] = new
            plain[mode] = new
            if mode < len(hat) - 1:
                grams[mode] = gram(hat[mode]) if mask_sweep is None else pairs(hat[mode])
            else:
                after = _error(product, new, v)
        evaluated = [*hat[:-1], plain[-1]]
        worse, better = after > before, after < least
        best = [_where(better, new, old) for new, old in zip(evaluated, best, strict=True)]
        least = torch.minimum(least, after)
        hat = [_where(worse, old, new) for old, new in zip(plain, hat, strict=True)]
        limit = torch.where(worse, step, (_GROW_LIMIT * limit).clamp(max=1))
        step = torch.where(worse, step / _SHRINK, torch.minimum(_GROW * step, limit))
        enough = (stop * before).clamp(min=_ROUNDING, max=stop) if relative else stop
        calm = calm + 1 if bool(((before - after).abs() <= enough).all()) else 0
        before = after
        if callback is not None:
            callback(iteration, max_iter, {"error": float(least.mean()) ** 0.5})
        if calm == 2:
            break
    return best, least


def gram(factor: Tensor) -> Tensor:
    """Inner products of the components, the first conjugated, (b, R, R)."""
    return factor.conj() @ factor.mT


def unit(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (b, …) with every tensor scaled to norm 1, and the norms (b,) in float64; zeros stay zero."""
    x, scale = near_unit(x, x.ndim - 1)
    norm = squared_norms(x, 1).sqrt()
    norm = torch.where(norm > 0, norm, 1)
    one = x / norm.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
    return one, norm if scale is None else norm * scale.double()


def balance_components(factors: list[Tensor], scale: Tensor) -> tuple[Tensor, ...]:
    """Give each component equal norms in all modes: factors (b, I_n, R) of the tensors scaled back."""
    norms = torch.stack([torch.linalg.vector_norm(f, dim=2, dtype=torch.float64) for f in factors])
    together = norms.log().mean(0).exp() * scale.unsqueeze(1) ** (1 / len(factors))
    gains = torch.where(norms > 0, together / norms, 0)
    return tuple([(f * g.to(f.dtype).unsqueeze(2)).mT.contiguous() for f, g in zip(factors, gains, strict=True)])


def random_factors(
    shape: tuple[int, ...], rank: int, b: int, like: Tensor, generator: Generator | None, *, signed: bool
) -> list[Tensor]:
    """Random factors to start from, uniform in [0, 1) or, where ``signed``, normal; components have norm 1."""
    generator = generator or torch.Generator(like.device).manual_seed(0)
    draw, dtype = torch.randn if signed else torch.rand, torch.complex128 if like.is_complex() else torch.float64
    factors = []
    for n in shape:
        factor = draw(b, rank, n, generator=generator, dtype=dtype, device=generator.device)
        factors.append(torch.nn.functional.normalize(factor, dim=2).to(like))
    return factors


def _error(product: Tensor, factor: Tensor, v: Tensor) -> Tensor:
    """Squared errors (b,) of tensors of norm 1."""
    inner = (product.conj() * factor).real.sum((1, 2), dtype=torch.float64)
    quadratic = (v * gram(factor)).real if v.ndim == 3 else apply_row_matrices(v, factor) * factor
    square = quadratic.sum((1, 2), dtype=torch.float64)
    return (1 - 2 * inner + square).clamp(min=0)


def _where(choice: Tensor, a: Tensor, b: Tensor) -> Tensor:
    if len(choice) == 1:  # no copy
        return a if bool(choice) else b
    return torch.where(choice.view(-1, 1, 1), a, b)
