"""The best approximation of a matrix by a sum of Kronecker products."""

from __future__ import annotations

from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import Kronecker
from polyad.formats.structured.grid import balanced_divisor
from polyad.linalg import evenly, truncated_svd


@method(
    "decompose",
    makes=Kronecker,
    example={"x": (3, 6, 8), "rank": 2},
    papers=(
        Paper(
            "Van Loan, Pitsianis",
            1993,
            "Approximation with Kronecker Products",
            "doi:10.1007/978-94-015-8196-7_17",
        ),
    ),
)
def kronecker_svd(
    x: Tensor, rank: int | None = None, *, tol: float | None = None, shape_of_first: tuple[int, int] | None = None
) -> Kronecker:
    """The closest sum of ``rank`` Kronecker products, or of the fewest with a relative error of at most ``tol``.

    x has shape (*batch, a b, c d) and a floating dtype, which the factors keep; half precision is computed in
    float32. ``shape_of_first`` is (a, c); by default the divisors nearest to the square roots of the two sides,
    where the two factors together are smallest. Up to min(a c, b d) terms are exact. A batch with ``tol`` takes the
    most terms that one of its matrices needs and pads the others with zeros.

    The blocks of x become the rows of a matrix (a c, b d), and its singular value decomposition is the answer: the
    error is the norm of the values dropped. Cost: one pass to reorder x, and ``polyad.linalg.truncated_svd`` of that
    matrix. Both factors carry the root of the singular values. Gradients flow to x.

    Raises ValueError for a shape_of_first that does not divide x, a rank beyond the rearranged matrix, NaN and
    infinities, and unless one of rank and tol is given.

    >>> planted = Kronecker.random((6, 8), generator=torch.Generator().manual_seed(0))
    >>> fit = kronecker_svd(planted.to_dense(), tol=1e-5, shape_of_first=(2, 2))
    >>> fit.rank, bool((fit.to_dense() - planted.to_dense()).norm() < 1e-5 * planted.to_dense().norm())
    (2, True)
    """
    _check.floating("x", x)
    _check.dimensions("x", x, 2)
    a, c = first_shape(x, shape_of_first)
    left, right = evenly(*truncated_svd(rearrange_blocks(x, (a, c)), rank, tol=tol))
    first = left.mT.unflatten(-1, (a, c))
    second = right.unflatten(-1, (x.shape[-2] // a, x.shape[-1] // c))
    return Kronecker(first.to(x.dtype).contiguous(), second.to(x.dtype).contiguous())


def rearrange_blocks(x: Tensor, shape_of_first: tuple[int, int]) -> Tensor:
    """Rearrange the blocks of x (*batch, a b, c d) as rows (*batch, a c, b d): Van Loan and Pitsianis' R(x)."""
    a, c = shape_of_first
    blocks = x.unflatten(-1, (c, -1)).unflatten(-3, (a, -1))  # (*batch, a, b, c, d)
    return blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2)


def first_shape(x: Tensor, shape_of_first: tuple[int, int] | None) -> tuple[int, int]:
    """The shape of the first factor, checked; the divisors nearest to the roots of x's sides where none is given."""
    if shape_of_first is None:
        rows, columns = x.shape[-2:]
        return balanced_divisor(rows), balanced_divisor(columns)
    sides = tuple(x.shape[-2:])
    if len(shape_of_first) != 2 or any(k < 1 or n % k for n, k in zip(sides, shape_of_first, strict=True)):
        raise ValueError(f"shape_of_first={shape_of_first} must hold a divisor of each side of x, {sides}")
    return shape_of_first[0], shape_of_first[1]
