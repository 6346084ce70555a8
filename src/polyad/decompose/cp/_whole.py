"""Sums of outer products of tensors without missing entries: starts compete on a core, the best is refined on x."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad.decompose.cp._complex import fit_complex
from polyad.decompose.cp._form import norms
from polyad.decompose.cp._search import Search
from polyad.decompose.cp._start import compress, race
from polyad.decompose.cp._sweeps import refine_factors
from polyad.linalg import truncated_svd
from polyad.linalg.scaling import double


def fit_whole(
    x: Tensor,
    norm: Tensor,
    rank: int,
    search: Search,
) -> list[Tensor]:
    """Factors of x / norm as rows (batch, 1, rank, I_n), in float64: the best of the starts, refined on x."""
    if x.ndim == 3:
        return _matrix(x, norm, rank)
    if x.is_complex():
        return fit_complex(x, norm, rank, search)
    core, bases = compress(x, rank, search.generator)
    size = norms(core)
    size = torch.where(size > 0, size, 1)
    share = size / norm
    eps = torch.finfo(x.dtype).eps
    enough = (0.01 * (1 - share.square())).clamp(min=(30 * eps) ** 2)
    core = core / size.view(-1, *[1] * (x.ndim - 1))
    rows = race(
        core, rank, search.restarts, ridge=search.ridge, enough=enough, stop=search.stop, generator=search.generator,
        eps=eps,
    )  # fmt: skip
    rows = [row if basis is None else row @ basis.mT.unsqueeze(1) for row, basis in zip(rows, bases, strict=True)]
    even = share.pow(1 / len(rows)).view(-1, 1, 1, 1)
    rows = [row * even for row in rows]
    if not search.max_iter:
        return rows
    return refine_factors(
        x, rows, norm, stop=search.stop, max_iter=search.max_iter, ridge=search.ridge, callback=search.callback
    )[0]


def _matrix(x: Tensor, norm: Tensor, rank: int) -> list[Tensor]:
    """Order 2: the singular value decomposition."""
    u, s, vh = truncated_svd(x, rank)
    return [double((u * s.unsqueeze(-2)).mT).unsqueeze(1) / norm.view(-1, 1, 1, 1), double(vh).unsqueeze(1)]
