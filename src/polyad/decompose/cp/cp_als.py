"""The canonical polyadic decomposition by alternating least squares."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial

from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.decompose.alternating.seen_entries import apply_mask
from polyad.decompose.cp._arguments import check_rank_or_tol, largest_rank
from polyad.decompose.cp._complex import refine_rows
from polyad.decompose.cp._form import bring_near_unit, canonical_form, fibre_terms, terms_cancel
from polyad.decompose.cp._masked import complete
from polyad.decompose.cp._own_start import check_start, refine_start
from polyad.decompose.cp._search import Search
from polyad.decompose.cp._tolerance_rank import dense_error, rounded_error, search_rank
from polyad.decompose.cp._whole import fit_whole
from polyad.formats import CP
from polyad.linalg import single_or_double


@method(
    "decompose",
    makes=CP,
    example={"rank": 2},
    papers=(
        Paper(
            "Carroll, Chang",
            1970,
            "Analysis of individual differences in multidimensional scaling via an n-way generalization of "
            "'Eckart-Young' decomposition",
            "doi:10.1007/BF02310791",
        ),
        Paper(
            "Phan, Tichavský, Cichocki",
            2013,
            "Fast alternating LS algorithms for high order CANDECOMP/PARAFAC tensor factorizations",
            "doi:10.1109/TSP.2013.2269903",
            adds="products of the tensor with half of the factors, shared by the modes of the other half",
        ),
        Paper(
            "Ma, Solomonik",
            2021,
            "Efficient parallel CP decomposition with pairwise perturbation and multi-sweep dimension tree",
            "doi:10.1109/IPDPS49936.2021.00049",
            adds="products that outlive a sweep: at order 3, three large ones for two sweeps",
        ),
        Paper(
            "Bro, Andersson",
            1998,
            "Improving the speed of multiway algorithms. Part II: Compression",
            "doi:10.1016/S0169-7439(98)00011-2",
            adds="starts that are refined on a Tucker core",
        ),
        Paper(
            "Leurgans, Ross, Abel",
            1993,
            "A decomposition for three-way arrays",
            "doi:10.1137/0614071",
            adds="starts from a generalised eigenvalue problem, exact where the tensor is",
        ),
    ),
)
def cp_als(
    x: Tensor,
    rank: int | None = None,
    *,
    tol: float | None = None,
    mask: Tensor | None = None,
    batch: int = 0,
    init: CP | None = None,
    fixed: Sequence[int] = (),
    restarts: int = 8,
    ridge: float = 0.0,
    stop: float = 1e-6,
    max_iter: int = 500,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> CP:
    """A sum of ``rank`` outer products close to x: the best of several starts, refined by least squares mode by mode.

    x has shape (*batch, I₁, …, I_N) with N ≥ 2 and ``batch`` leading dimensions that count tensors, all decomposed
    in one loop. ``tol`` instead looks for a small rank whose relative Frobenius error is at most that, by growing
    ranks and then bisection; a batch takes the rank that its worst tensor needs. The result is detached from x and
    has x's dtype; half precision is computed in float32, all that is small in float64. Weights descend and are not
    negative, columns have norm 1, and the largest entries of all factors but the last are positive.

    x is compressed to a core of at most ``rank`` entries a mode. Starts from generalised eigenvectors and, where
    these leave more than the compression lost, ``restarts`` random ones compete there, with Gauss-Newton steps while
    the core is small; the best is refined on x by sweeps until one gains less than ``stop`` of the squared error,
    ``max_iter`` at most. At order 2 the answer is the singular value decomposition.

    ``mask``, of bools in x's shape, is True where an entry was seen; what x holds elsewhere is not read, NaN
    included, and errors are those of entries seen. Then each row of a factor has normal equations of its own: a
    sweep takes about (rank + 1) / 2 times as long, in float64. The fit of x with zeros where nothing was seen, one
    outer product after another, and ``restarts`` random starts compete for 40 sweeps, until one leaves at most
    ``stop`` of ‖x‖²; then sweeps go on until two in a row gain at most ``stop`` of the squared error. Rows without
    any entry seen are zero.

    Of complex x the largest entries are real in place of positive, starts compete by sweeps alone, and masks are
    refused.

    ``init``, a CP of x's shape, is where to start instead; then sweeps alone follow, until two in a row gain at most
    ``stop`` of the squared error. Factors of the modes in ``fixed`` stay as they are there; the result has no
    weights then, and lengths are in the other factors. Masks and ``tol`` are refused with it.

    Some tensors have no best approximation of a rank: terms grow without bound and nearly cancel. Starts that do
    so lose against equal ones; if the result still does, a warning says so. ``ridge`` adds ``ridge ‖x‖² Σₙ
    ‖A_n‖²``, for factors A_n of x / ‖x‖ that share the weights, and bounds the terms.

    A sweep costs 3 rank ΠI operations at order 3 (three large products in two sweeps), 4 rank ΠI above (two), and
    the memory of rank ΠI / min I numbers, or of half of the modes. ``callback(sweep, max_iter, {"error": …})``
    follows each sweep with the relative Frobenius error, the largest of the batch.

    Raises ValueError for a rank above ΠI / max I, which any tensor of x's shape has, for NaN and infinities, and
    unless one of rank and tol is given.

    >>> planted = CP.random((6, 5, 4), generator=torch.Generator().manual_seed(0))
    >>> fit = cp_als(planted.to_dense(), rank=2)
    >>> fit.factors[1].shape, bool((fit.to_dense() - planted.to_dense()).norm() < 1e-5 * planted.norm())
    (torch.Size([5, 2]), True)
    """
    _check.iterations(max_iter, stop)
    if isinstance(x, Tensor) and (init is not None or len(fixed)):
        rank = check_start(x, rank, tol, batch, init, fixed)
    sizes, lead = check_rank_or_tol(x, rank, tol, batch, complex_too=True), tuple(x.shape[:batch])
    generator = generator if generator is not None else Generator().manual_seed(0)
    search = Search(restarts, ridge, stop, max_iter, generator, callback)
    _refuse_mask(x, mask)
    work, mask = apply_mask(single_or_double(x.detach()), mask)
    masks = None if mask is None else mask.reshape(-1, *sizes)
    work, norm, scale = bring_near_unit(work.reshape(-1, *sizes).contiguous())
    if init is not None:
        if masks is not None:
            raise ValueError("mask was given with init, which is not known together; leave one of them out")
        fit = refine_start(init, norm * scale, fixed, x.dtype, partial(refine_rows, work, norm, fixed, search))
        return fit if len(fixed) else fit.normalize()

    def solve(r: int) -> CP:
        rows = fit_whole(work, norm, r, search) if masks is None else complete(work, masks, r, search)[0]
        if rank is not None and bool(terms_cancel(rows).any()):
            _warn_of_cancellation(r, sizes)
        return canonical_form(rows, norm * scale, lead, x.dtype)

    if rank is not None:
        return solve(rank)
    assert tol is not None
    return search_rank(
        solve, lambda: canonical_form(fibre_terms(work), scale, lead, x.dtype), largest_rank(sizes), tol,
        lambda fit: rounded_error(work, fit, norm, scale) if masks is None and not work.is_complex()
        else dense_error(work, fit, scale, masks),
    )  # fmt: skip


def _refuse_mask(x: Tensor, mask: Tensor | None) -> None:
    if mask is not None and x.is_complex():
        raise TypeError(
            f"x has dtype {x.dtype} and mask hides entries, which is not known for complex numbers; give x without "
            "mask, hooi with mask, or torch.view_as_real(x) with mask.unsqueeze(-1).expand(*mask.shape, 2)"
        )


def _warn_of_cancellation(rank: int, sizes: tuple[int, ...]) -> None:
    warnings.warn(
        f"terms of rank {rank} grow and nearly cancel: a tensor of shape {sizes} may have no best approximation of "
        "this rank; choose another rank, or bound the terms with ridge=1e-4",
        stacklevel=4,
    )
