"""The best approximation of a tensor by one of low tubal rank."""

from __future__ import annotations

from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import Tubal
from polyad.formats.structured.tubes import from_frequencies, to_frequencies, truncate


@method(
    "decompose",
    makes=Tubal,
    example={"x": (6, 5, 4), "rank": 2},
    papers=(
        Paper(
            "Kilmer, Martin",
            2011,
            "Factorization strategies for third-order tensors",
            "doi:10.1016/j.laa.2010.09.020",
        ),
    ),
)
def t_svd(x: Tensor, rank: int | None = None, *, tol: float | None = None) -> Tubal:
    """The closest tensor of tubal rank ``rank``, or of the least with a relative error of at most ``tol``.

    x has shape (*batch, n, m, l) with tubes along the last mode, and a floating dtype, which the factors keep; half
    precision is computed in float32. The matrices of x at the l // 2 + 1 frequencies of the tubes' Fourier transform
    are each cut to the rank, which no tensor of that tubal rank can beat. The factor of the shorter of n and m has
    t-orthonormal columns, the other is its t-product with x; the paper's three factors are these two with the middle
    one in the second. A batch with ``tol`` takes the largest rank that one of its tensors needs.

    Cost: the transform of x, and l / 2 complex decompositions of n by m: for float32 an eigenvalue problem of the
    shorter side in double precision, for float64 a singular value decomposition. A small ``rank``, 6 (rank + 8) up to
    the shorter side, is found by block Krylov iteration instead where x needs no gradient: its squared error is
    within about a thousandth of itself of the least, and where it does not get there the above is done. Gradients
    flow to x and are finite at repeated singular values; they are those of functions of the tensor, not of the choice
    of its factors.

    Raises ValueError for fewer than three modes, a rank beyond min(n, m), NaN and infinities, and unless one of rank
    and tol is given.

    >>> planted = Tubal.random((6, 5, 4), generator=torch.Generator().manual_seed(0))
    >>> fit = t_svd(planted.to_dense(), tol=1e-4)
    >>> fit.rank, bool((fit.to_dense() - planted.to_dense()).norm() < 1e-4 * planted.to_dense().norm())
    (2, True)
    """
    _check.floating("x", x)
    _check.finite("x", _check.dimensions("x", x, 3))
    n = x.shape[-1]
    left, right = (from_frequencies(part, n) for part in truncate(to_frequencies(x), n, rank, tol))
    return Tubal(left.to(x.dtype).contiguous(), right.to(x.dtype).contiguous())
