"""Tucker tensors without negative entries in core and factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.decompose.alternating.extrapolation import random_factors, unit
from polyad.decompose.alternating.nonnegative_updates import ACCELERATED, SOLVERS, check_signs, check_update
from polyad.decompose.alternating.own_start import check_not_negative
from polyad.decompose.tucker._core_update import renew_core
from polyad.decompose.tucker._own_start import check_start
from polyad.decompose.tucker._sweep import sweep_modes
from polyad.formats import Tucker
from polyad.linalg import mode_product, unfold


@method(
    "decompose",
    makes=Tucker,
    example={"rank": (2, 3, 2)},
    papers=(
        Paper(
            "Kim, Choi",
            2007,
            "Nonnegative Tucker decomposition",
            "doi:10.1109/CVPR.2007.383405",
            adds="multiplicative updates of core and factors, with update='mu'",
        ),
        Paper(
            "Phan, Cichocki",
            2011,
            "Extended HALS algorithm for nonnegative Tucker decomposition and its applications for multiway analysis "
            "and classification",
            "doi:10.1016/j.neucom.2010.06.031",
            handle="nonnegative-tucker",
            adds="updates of the factors by components",
        ),
        ACCELERATED,
        Paper(
            "Beck, Teboulle",
            2009,
            "A fast iterative shrinkage-thresholding algorithm for linear inverse problems",
            "doi:10.1137/080716542",
            adds="the steps of the core",
        ),
    ),
)
def nonnegative_tucker(
    x: Tensor,
    rank: tuple[int, ...] | int | None = None,
    *,
    batch: int = 0,
    update: Literal["hals", "mu"] = "hals",
    init: Tucker | None = None,
    fixed: Sequence[int] = (),
    max_iter: int = 200,
    stop: float = 1e-8,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> Tucker:
    """A Tucker tensor whose core and factors have no negative entries, close to x in the Frobenius norm.

    x has shape (*batch, I₁, …, I_N) with N ≥ 2, the first ``batch`` dimensions counting tensors. ``rank`` gives a
    number a mode, or one for all, cut to the mode's size. Negative entries of x are allowed with ``update="hals"``
    (the result stays non-negative) and refused with "mu", the multiplicative updates, which are slower as a rule.

    A sweep renews each factor by eight updates of all its components, and then the core: by ten accelerated
    projected gradient steps, each tensor keeping its best, or by eight multiplications. No update raises the error.
    Sweeps end after ``max_iter``, or when two in a row lower the relative squared error of no tensor by more than
    ``stop``. A sweep costs two products of x with the factors of half of the modes each, as in ``hooi``.
    ``callback(sweep, max_iter, {"error": …})`` follows each sweep with the largest relative Frobenius error, which is
    a difference, exact to about the root of the dtype's epsilon.

    ``init``, a Tucker tensor of x's shape without negative entries, is where to start instead of random factors and
    a constant core, which ``generator`` draws (None: always the same); its ranks are taken. Factors of the modes in
    ``fixed`` stay as they are there; the columns of the others have norm 1.

    Core and factors have x's dtype, half precision being computed in float32. Not differentiable: x is detached.
    Departs from Phan and Cichocki in the core, whose entries they update one by one, and from Kim and Choi in
    several updates of a factor for one product with x.

    Raises ValueError for ranks beyond their mode, for NaN and infinities, for negative entries of ``init`` or, with
    "mu", of x, and unless a rank or a start is given.

    >>> planted = Tucker(torch.rand(2, 2, 2), tuple(torch.rand(n, 2) for n in (6, 5, 4)))
    >>> fit = nonnegative_tucker(planted.to_dense(), 2)
    >>> bool(((fit.to_dense() - planted.to_dense()).norm() < 0.05 * planted.to_dense().norm()))
    True
    >>> all(bool((part >= 0).all()) for part in (fit.core, *fit.factors))
    True
    """
    _check.iterations(max_iter, stop)
    _check.batch(batch, _check.floating("x", x), 2)
    ranks = check_start(x, rank, batch, init, fixed)
    check_update(update)
    if ranks is None:
        raise ValueError("neither rank nor init is given; give rank, one number a mode or one for all")
    shape, modes = tuple(x.shape[batch:]), tuple(range(x.ndim - batch))
    half = x.dtype not in (torch.float32, torch.float64)
    dense = x.detach().to(torch.float32 if half else x.dtype).reshape(-1, *shape).contiguous()
    work, scale = unit(dense)  # refuses NaN and infinities in the pass that it makes anyway
    check_signs(update, work)
    core, factors = _start(work, ranks, generator) if init is None else _take_start(init, work, scale, fixed)
    solve = SOLVERS[update][0]

    def renew(mode: int, y: Tensor) -> Tensor:
        nonlocal core
        if mode in fixed:
            return factors[mode]
        others = core
        for other in modes:
            if other != mode:
                others = mode_product(others, factors[other].mT @ factors[other], other, 1)
        inner = unfold(core, mode, 1)  # (b, r_n, product of the others)
        product, gram = inner @ unfold(y, mode, 1).mT, unfold(others, mode, 1) @ inner.mT
        columns = solve(factors[mode].mT.contiguous(), product, gram).mT
        length = torch.linalg.vector_norm(columns, dim=1)
        core = mode_product(core, torch.diag_embed(length), mode, 1)
        return columns / torch.where(length > 0, length, 1).unsqueeze(1)

    error, calm = work.new_full((len(work),), torch.inf, dtype=torch.float64), 0
    for sweep in range(max_iter):
        projected = sweep_modes(work, factors, modes, 1, renew)
        before = error
        core, error = renew_core(core, projected, factors, update)
        if callback is not None:
            callback(sweep, max_iter, {"error": float(error.max()) ** 0.5})
        calm = calm + 1 if bool((before - error <= stop).all()) else 0
        if calm == 2:
            break
    alive = work.flatten(1).any(1)
    core = core * (scale * alive).view(-1, *[1] * len(shape))
    lead = x.shape[:batch]
    matrices = [
        init.factors[mode].detach() if init is not None and mode in fixed else factors[mode] for mode in modes
    ]
    parts = [
        part.to(x.dtype).reshape(*lead, *part.shape[-n:])
        for part, n in ((core, len(shape)), *((k, 2) for k in matrices))
    ]
    return Tucker(parts[0].contiguous(), tuple(parts[1:]))


def _start(x: Tensor, rank: tuple[int, ...], generator: Generator | None) -> tuple[Tensor, list[Tensor]]:
    """A constant core and uniform factors whose columns have norm 1, for x (b, …)."""
    generator = generator or Generator(x.device).manual_seed(0)
    factors = [
        random_factors((n,), r, len(x), x, generator, signed=False)[0].mT
        for n, r in zip(x.shape[1:], rank, strict=True)
    ]
    return x.new_full((len(x), *rank), x[0].numel() ** -0.5), factors


def _take_start(init: Tucker, x: Tensor, scale: Tensor, fixed: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """The core and factors of ``init`` for x (b, …), which was divided by ``scale`` (b,)."""
    check_not_negative(init)
    core = init.core.detach().double().reshape(len(x), *init.rank) / scale.view(-1, *[1] * len(init.rank))
    factors = [factor.detach().double().reshape(len(x), *factor.shape[-2:]) for factor in init.factors]
    for mode, factor in enumerate(factors):
        if mode not in fixed:
            length = torch.linalg.vector_norm(factor, dim=1)
            core = mode_product(core, torch.diag_embed(length), mode, 1)
            factors[mode] = factor / torch.where(length > 0, length, 1).unsqueeze(1)
    return core.to(x.dtype), [factor.to(x.dtype) for factor in factors]
