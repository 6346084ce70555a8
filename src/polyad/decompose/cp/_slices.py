"""The direct fit of the PARAFAC2 model: orthonormal projections of the slices, and least squares for the factors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad.decompose.cp._sweeps import Sweeps

_TRIAL = 30
"""Iterations after which starts are compared."""
_SWEEPS = 2
_ROUNDING = 1e-24
"""The squared error below which nothing is left to gain."""

Rows = list[Tensor]
"""A, B and C as rows (R, n)."""


def check_slices(slices: Sequence[Tensor]) -> list[Tensor]:
    """Refuse slices that are not finite real matrices with equally many columns and one dtype. Returns them."""
    if not isinstance(slices, Tensor | list | tuple):
        raise TypeError(f"slices is a {type(slices).__name__}; give a list of matrices, or a tensor (K, J, I)")
    if isinstance(slices, Tensor) and slices.ndim != 3:
        raise ValueError(f"slices of shape {tuple(slices.shape)} must be a tensor (K, J, I), or a list of matrices")
    if not len(slices):
        raise ValueError("slices is empty; at least one matrix is needed")
    matrices = list(slices)
    for k, x in enumerate(matrices):
        name = f"slices[{k}]"
        if _check.floating(name, x).ndim != 2:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; a matrix (J, I) is needed")
        _check.finite(name, _check.dimensions(name, x, 2))
        first = matrices[0]
        if x.shape[1] != first.shape[1] or x.dtype != first.dtype:
            raise ValueError(
                f"{name} has {x.shape[1]} columns of {x.dtype}, slices[0] {first.shape[1]} of {first.dtype}; all "
                "need equally many columns and one dtype"
            )
    return matrices


def shorten_slices(slices: list[Tensor]) -> tuple[list[Tensor], list[Tensor | None], float]:
    """Slices of at most as many rows as columns and joint norm 1, the bases that bring them back, and the norm."""
    top = max(float(x.abs().max()) for x in slices) or 1.0
    size = sum(float((x / top).square().sum()) for x in slices) ** 0.5 or 1.0
    short: list[Tensor] = []
    bases: list[Tensor | None] = []
    for x in slices:
        unit = x / top / size
        q, r = torch.linalg.qr(unit) if x.shape[0] > x.shape[1] else (None, unit)
        short.append(r)
        bases.append(q)
    return short, bases, top * size


def fit_slices(
    slices: list[Tensor],
    rank: int,
    starts: int,
    max_iter: int,
    stop: float,
    generator: Generator,
    callback: Callback | None,
) -> tuple[list[Tensor], Rows]:
    """Projections (J_k, R) and the rows of A, B and C for slices (J_k, I) of joint norm 1, the best of the starts."""
    rows, least, history = [torch.empty(0)], float("inf"), list[float]()
    for place in range(starts):
        start = _start(slices, rank, generator, random=place > 0)
        refined, errors = _iterate(slices, start, min(_TRIAL, max_iter), stop)
        if errors[-1] < least:
            rows, least, history = refined, errors[-1], errors
        if least <= _ROUNDING:
            break
    for number, error in enumerate(history):
        if callback is not None:
            callback(number, max_iter, {"error": error**0.5})
    if len(history) == _TRIAL:
        rows, _ = _iterate(slices, rows, max_iter, stop, _TRIAL, callback)
    return project_slices(slices, rows)[0], rows


def _start(slices: list[Tensor], rank: int, generator: Generator, *, random: bool) -> Rows:
    columns = slices[0].shape[1]
    if random:
        c = torch.randn(rank, columns, generator=generator, dtype=torch.float64).to(slices[0])
        b = torch.randn(rank, rank, generator=generator, dtype=torch.float64).to(slices[0])
        a = torch.rand(rank, len(slices), generator=generator, dtype=torch.float64).to(slices[0])
        return [a, torch.linalg.qr(b).Q, torch.nn.functional.normalize(c, dim=1)]
    gram = sum([x.mT @ x for x in slices], torch.zeros_like(slices[0].mT @ slices[0]))
    c = torch.linalg.eigh(gram)[1][:, -rank:].flip(1).mT
    return [slices[0].new_ones(rank, len(slices)), torch.eye(rank).to(c), c]


def _iterate(
    slices: list[Tensor], rows: Rows, max_iter: int, stop: float, first: int = 0, callback: Callback | None = None
) -> tuple[Rows, list[float]]:
    """Iterations from the number ``first`` on; the rows and the squared error after each."""
    errors: list[float] = []
    _, projected, error = project_slices(slices, rows)
    for done in range(first, max_iter):
        sweeps = Sweeps(
            projected.unsqueeze(0), [row[None, None] for row in rows], projected.new_ones(1, dtype=torch.float64), 0.0
        )
        for _ in range(_SWEEPS):
            sweeps.sweep()
        new = [row[0, 0] for row in sweeps.factors]
        _, projected, after = project_slices(slices, new)
        if done > 4:
            reach = (done + 1) ** (1 / 3)
            far = [old + reach * (one - old) for old, one in zip(rows, new, strict=True)]
            _, far_projected, far_error = project_slices(slices, far)
            if far_error < after:
                new, projected, after = far, far_projected, far_error
        gain, error, rows = error - after, after, new
        errors.append(error)
        if callback is not None:
            callback(done, max_iter, {"error": error**0.5})
        if gain <= stop * error or error <= _ROUNDING:
            break
    return rows, errors


def project_slices(slices: list[Tensor], rows: Rows) -> tuple[list[Tensor], Tensor, float]:
    """The best projections (J_k, R) for these factors, the projected slices (K, R, I), and the squared error."""
    a, b, c = rows
    model = (a.mT.unsqueeze(1) * b.mT) @ c  # (K, R, I): B diag(a_k) Cᵀ
    projections: list[Tensor] = [model] * len(slices)
    projected, error = torch.empty_like(model), 0.0
    for length in {x.shape[0] for x in slices}:
        places = [k for k, x in enumerate(slices) if x.shape[0] == length]
        x = torch.stack([slices[k] for k in places])
        u, _, vh = torch.linalg.svd(x @ model[places].mT, full_matrices=False)
        p = u @ vh
        projected[places] = p.mT @ x
        error += float((x - p @ model[places]).square().sum())
        for k, one in zip(places, p, strict=True):
            projections[k] = one
    return projections, projected, error
