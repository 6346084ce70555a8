"""The sequentially truncated higher-order singular value decomposition, and the classical one."""

from __future__ import annotations

from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.decompose.tucker._sketch import sketch_tucker
from polyad.formats import Tucker
from polyad.linalg import near_unit, single_or_double
from polyad.linalg.higher_order import higher_order_svd, truncation_order


@method(
    "decompose",
    makes=Tucker,
    example={"rank": (2, 3, 2)},
    papers=(
        Paper(
            "De Lathauwer, De Moor, Vandewalle",
            2000,
            "A multilinear singular value decomposition",
            "doi:10.1137/S0895479896305696",
            adds="the factors of x itself, with sequential=False",
        ),
        Paper(
            "Vannieuwenhoven, Vandebril, Meerbergen",
            2012,
            "A new truncation strategy for the higher-order singular value decomposition",
            "doi:10.1137/110836067",
        ),
        Paper(
            "Halko, Martinsson, Tropp",
            2011,
            "Finding structure with randomness: Probabilistic algorithms for constructing approximate matrix "
            "decompositions",
            "doi:10.1137/090771806",
            adds="the random mixtures that stand for one mode while the factors of the others are found",
        ),
    ),
)
def st_hosvd(
    x: Tensor,
    rank: tuple[int, ...] | int | None = None,
    *,
    tol: float | None = None,
    batch: int = 0,
    order: tuple[int, ...] | None = None,
    sequential: bool = True,
    sketch: bool | None = None,
    generator: Generator | None = None,
) -> Tucker:
    """A Tucker approximation with orthonormal factors, found mode after mode without iterating.

    x has shape (*batch, I₁, …, I_N) with N >= 2, the first ``batch`` dimensions counting tensors. ``rank`` gives a
    number a mode, or one for all, cut to the mode's size; ``tol`` instead takes ranks for which the relative
    Frobenius error of every tensor is at most that. The error is at most √N times that of the best approximation of
    the same ranks, and known beforehand: the squared errors of the modes add up.

    Modes are taken in ``order``, by default the one shrunk most first; each is cut to the leading left singular
    vectors of what the others have left. With ``sequential=False`` they are those of x itself: N times the work,
    no dependence on the order. The first mode costs 2 I_1 numel(x) operations and an eigenvalue problem of size I_1.

    A sketch replaces that by two products of x with tall matrices of about r columns. One mode is mixed down at
    random to a few more entries than its rank, the other factors are those of the mixture, and the last comes
    exactly from x projected on them; then ``‖x‖² - ‖core‖²`` says exactly what is lost. ``sketch=None`` does so
    where it pays (a million numbers or more, a mode that shrinks to a third) and keeps the result if it loses at
    most a tenth more (squared) than the mixture promised, or with ``tol`` if it is within it; else x is
    decomposed exactly. True insists on the attempt, False rules it out. ``generator`` draws the mixtures, the same by
    default.

    Factors and core have x's dtype, which may be complex; half precision is computed in float32. Gradients
    flow to x as those of ``polyad.linalg.left_singular`` do.

    Raises ValueError for ranks beyond their mode, NaN and infinities, an order that does not name each mode
    once, and unless one of rank and tol is given.

    >>> planted = Tucker.random((6, 5, 4), generator=torch.Generator().manual_seed(0))
    >>> fit = st_hosvd(planted.to_dense(), tol=1e-4)
    >>> fit.rank, bool((fit.to_dense() - planted.to_dense()).norm() < 1e-4 * planted.norm())
    ((3, 2, 2), True)
    """
    _check.floating("x", x, complex_too=True)
    _check.batch(batch, x, 2)
    _check.exactly_one(rank=rank, tol=tol)
    ranks = _check.ranks(rank, tuple(x.shape[batch:]))
    if tol is not None:
        _check.tolerance(tol)
    modes = _order(order, ranks, tuple(x.shape[batch:]))
    work, scale = near_unit(single_or_double(x).contiguous(), x.ndim - batch)
    sketched = None
    if sequential and sketch is not False:
        sketched = sketch_tucker(work, ranks, tol, batch, generator, insist=sketch is True)
    core, factors = sketched or higher_order_svd(work, ranks, tol, batch=batch, modes=modes, sequential=sequential)
    if scale is not None:
        core = core * scale[(..., *[None] * len(modes))]
    return Tucker(core.to(x.dtype).contiguous(), tuple(factor.to(x.dtype) for factor in factors))


def _order(order: tuple[int, ...] | None, rank: tuple[int, ...] | None, shape: tuple[int, ...]) -> list[int]:
    if order is None:
        return truncation_order(rank, shape)
    if sorted(order) != list(range(len(shape))):
        raise ValueError(f"order={order} must name each of the modes 0 to {len(shape) - 1} of shape {shape} once")
    return list(order)
