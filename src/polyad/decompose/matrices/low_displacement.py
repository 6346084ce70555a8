"""Low displacement rank from the singular value decomposition of a displacement."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import LowDisplacement
from polyad.formats.structured.low_displacement import shifts_for
from polyad.linalg import block_svd


@method(
    "decompose",
    makes=LowDisplacement,
    example={"x": (6, 4), "rank": 2},
    papers=(
        Paper(
            "Kailath, Kung, Morf",
            1979,
            "Displacement ranks of matrices and linear equations",
            "doi:10.1016/0022-247X(79)90124-0",
            adds="displacement operators, and the matrix as a sum of products read off its displacement",
        ),
    ),
)
def low_displacement(x: Tensor, rank: int | None = None, *, tol: float | None = None) -> LowDisplacement:
    """A matrix of displacement rank ``rank`` near x, or of the least rank found with a relative error below ``tol``.

    x has shape (*batch, n, m). The displacement ``Z_e x - x Z_f`` is cut to its leading singular triples, and the
    matrix of that displacement taken: exact where x has this displacement rank, otherwise *not* the closest. The
    cut's error can grow by 1 / (2 sin(π / 2 n)), about n / π, for a square x and by min(n, m) for others. ``tol`` is
    the relative Frobenius error of the result itself, measured at each rank tried, and in a batch that of each
    matrix; the full rank min(n, m) is taken where none below it will do.

    Shifts are (1, -1) for a square x, (1, 0) for a tall and (0, 1) for a wide one. Keeps x's dtype; computed in
    float64. Cost: a singular value decomposition of x's size, and with ``tol`` a few dense products of the result.
    Gradients flow as those of ``polyad.linalg.truncated_svd`` do.

    Raises ValueError for a rank beyond the matrix, for NaN and infinities, and unless one of the two is given.

    >>> i = torch.arange(5.0)
    >>> toeplitz = 1 / (1 + (i[:, None] - i).abs())
    >>> inverse = torch.linalg.inv(toeplitz)
    >>> low_displacement(toeplitz, tol=1e-5).rank, low_displacement(inverse, tol=1e-5).rank
    (2, 2)
    """
    _check.floating("x", x)
    _check.finite("x", _check.dimensions("x", x, 2))
    _check.exactly_one(rank=rank, tol=tol)
    limit = min(x.shape[-2:])
    if rank is not None:
        _check.rank(rank, limit, f"what the displacement of a matrix of shape {tuple(x.shape[-2:])} has")
    if tol is not None:
        _check.tolerance(tol)
    top = x.detach().abs().amax().double()
    scale = torch.where(top > 0, top, 1)
    work = x.double() / scale
    shifts = shifts_for(*x.shape[-2:])
    left, right = block_svd(_displacement(work, shifts).unsqueeze(-3).unsqueeze(-3), rank or limit)
    whole = LowDisplacement(*_generators(left[..., 0, 0, :, :], right[..., 0, 0, :, :].mT), shifts)
    if tol is not None:
        rank = _least(whole, work.detach(), tol, x.dtype)
    cut = _cut(whole, rank or limit)
    return LowDisplacement((cut.left * scale).to(x.dtype), cut.right.to(x.dtype), shifts)


def _displacement(x: Tensor, shifts: tuple[float, float]) -> Tensor:
    """``Z_e x - x Z_f``."""
    e, f = shifts
    down = torch.cat((e * x[..., -1:, :], x[..., :-1, :]), -2)
    return down - torch.cat((x[..., 1:], f * x[..., :1]), -1)


def _generators(g: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """From g hᵀ, the displacement by ``shifts_for``, the first columns of the circulants."""
    n, m = g.shape[-2], h.shape[-2]
    if n == m:
        return g / 2, h.flip(-2)
    return (g.roll(-m, -2), h.flip(-2)) if n > m else (g, -h.flip(-2))


def _cut(x: LowDisplacement, rank: int) -> LowDisplacement:
    return LowDisplacement(x.left[..., :rank], x.right[..., :rank], x.shifts)


def _least(whole: LowDisplacement, x: Tensor, tol: float, dtype: torch.dtype) -> int:
    """By bisection a rank whose matrix is within ``tol``, as it will be stored, where the next lower one is not."""
    norm = torch.linalg.matrix_norm(x)

    def good(rank: int) -> bool:
        stored = _cut(whole, rank).to(dtype).to(torch.float64)
        return bool((torch.linalg.matrix_norm(stored.to_dense() - x) <= tol * norm).all())

    low, high = 0, whole.rank
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle, high)
    return high
