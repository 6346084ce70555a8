"""Rows of a tall matrix that span a large volume."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check


def maxvol(u: Tensor, extra: int = 0, *, bound: float = 1.05, max_iter: int = 100) -> tuple[Tensor, Tensor]:
    """Indices (r + extra,) of rows of u (n, r) and coefficients C (n, r + extra) with ``u = C u[rows]``.

    r rows whose determinant no exchange with another row enlarges by more than ``bound``: then no coefficient is
    larger than that. The first come from a pivoted LU, each exchange costs 2 n r operations. ``extra`` further rows
    are those of the longest coefficients, one after another; they shorten all others (a rectangular volume). u needs
    full column rank.

    >>> rows, c = maxvol(torch.tensor([[1.0, 0.0], [0.5, 0.1], [0.0, 2.0], [0.3, 0.3]]), extra=1)
    >>> rows[:2].sort().values, c.shape
    (tensor([0, 2]), torch.Size([4, 3]))
    """
    _check.iterations(max_iter)
    _check.finite("u", _check.dimensions("u", _check.floating("u", u), 2))
    n, r = u.shape
    if n < r:
        raise ValueError(
            f"u of shape {tuple(u.shape)} has fewer rows than columns; maxvol needs as many rows or more"
        )
    rows = _pivots(u)
    c = torch.linalg.solve(u[rows].mT, u.mT).mT
    for _ in range(max_iter):
        i, j = divmod(int(c.abs().argmax()), r)
        if float(c[i, j].abs()) <= bound:
            break
        step = c[i].clone()
        step[j] -= 1
        c = c - torch.outer(c[:, j] / c[i, j], step)
        rows[j] = i
    return _longer(rows, c, min(extra, n - r))


def _pivots(u: Tensor) -> Tensor:
    """The rows that an LU decomposition with partial pivoting brings to the top."""
    permutation, _, _ = torch.linalg.lu(u)
    return permutation.argmax(0)[: u.shape[1]].clone()


def _longer(rows: Tensor, c: Tensor, extra: int) -> tuple[Tensor, Tensor]:
    """``extra`` more rows, each time the one of the longest coefficients, which are then the shortest possible."""
    lengths = c.square().sum(1)
    lengths[rows] = -1
    for _ in range(extra):
        i = int(lengths.argmax())
        v = c @ c[i]
        v = v / (1 + v[i])
        c = torch.cat((c - torch.outer(v, c[i]), v[:, None]), 1)
        rows = torch.cat((rows, rows.new_tensor([i])))
        lengths = c.square().sum(1)
        lengths[rows] = -1
    return rows, c
