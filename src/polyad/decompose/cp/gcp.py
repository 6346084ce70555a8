"""Canonical polyadic decompositions under other losses than squares, and of incomplete tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._callback import Callback
from polyad._card import Paper, method
from polyad.decompose.alternating.bounded_lbfgs import minimise
from polyad.decompose.alternating.extrapolation import balance_components, random_factors
from polyad.decompose.alternating.mttkrp import mttkrp_sweep
from polyad.decompose.alternating.seen_entries import check_mask, check_shows
from polyad.decompose.cp._arguments import check_rank
from polyad.formats import CP

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class _Kind:
    """Losses (x, m) entry by entry, to be minimised in turn, and the bounds they set on x and on the factors.

    ``least`` and ``most`` bound x. ``scales`` says that c x is approximated by c m, so that x may be scaled.
    """

    stages: tuple[Loss, ...]
    nonnegative: bool = False
    least: float = -math.inf
    most: float = math.inf
    scales: bool = True


def _smooth_distance(width: float, x: Tensor, m: Tensor) -> Tensor:
    """The absolute difference, rounded off where it is below ``width``."""
    return ((x - m).square() + width**2).sqrt() - width


_KINDS = {
    "normal": _Kind((lambda x, m: (x - m).square(),)),
    "l1": _Kind(tuple([partial(_smooth_distance, width) for width in (1e-1, 1e-2, 1e-3)])),
    "poisson": _Kind((lambda x, m: m - x * (m + 1e-10).log(),), nonnegative=True, least=0),
    "bernoulli": _Kind((lambda x, m: torch.nn.functional.softplus(m) - x * m,), least=0, most=1, scales=False),
}


@method(
    "decompose",
    makes=CP,
    example={"rank": 2},
    papers=(
        Paper(
            "Hong, Kolda, Duersch",
            2020,
            "Generalized Canonical Polyadic Tensor Decomposition",
            "doi:10.1137/18M1203626",
        ),
        Paper(
            "Acar, Dunlavy, Kolda, Mørup",
            2011,
            "Scalable tensor factorizations for incomplete data",
            "doi:10.1016/j.chemolab.2010.08.004",
            adds="missing entries left out of the loss",
        ),
    ),
)
def gcp(
    x: Tensor,
    rank: int,
    *,
    loss: str | Loss = "normal",
    mask: Tensor | None = None,
    nonnegative: bool | None = None,
    max_iter: int = 500,
    stop: float = 1e-8,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> CP:
    """A canonical polyadic tensor M of least mean loss over the entries that were observed.

    x has shape (I₁, …, I_N), N ≥ 2, and is one tensor. ``mask``, of bools in x's shape, is True where an entry was
    observed; elsewhere x may hold anything, NaN included. ``loss`` is one of

    - ``"normal"``: (x - m)²;
    - ``"l1"``: |x - m|, rounded off below a thousandth of x's root mean square;
    - ``"poisson"``: m - x log m for counts x ≥ 0, with non-negative factors;
    - ``"bernoulli"``: log(1 + eᵐ) - x m for x in [0, 1]: M holds log-odds, its sigmoid the probabilities;
    - a function (x, m) to losses entry by entry, differentiable in m.

    ``nonnegative`` bounds the factors by zero; None takes what the loss wants.

    L-BFGS on all factors at once, with projection where there are bounds. A step evaluates M, the loss and two
    products of its gradient with the factors, about 6 R numel(x) operations and some dense temporaries of x's size:
    M is dense on the way. Ends after ``max_iter`` steps, or when two in a row gain no more than the share ``stop``
    of all gains. ``callback(step, max_iter, {"loss": …})`` gets the mean loss; except for Bernoulli's and one's own
    loss, that of x scaled to a root mean square of 1.

    The factors have x's dtype, half precision being computed in float32, and equal norms in all modes; no weights.
    Not differentiable: x is detached. The start is random, from ``generator`` (None: always the same). Departs from
    the paper in the bounds' algorithm, and in log-odds where it takes odds.

    Raises ValueError for NaN and infinities that were observed, entries outside what the loss allows, a mask that
    hides everything, and a rank that no tensor of this shape needs, numel / max(I_n).

    >>> planted = torch.outer(torch.arange(1.0, 6), torch.arange(1.0, 5))
    >>> x = planted.clone()
    >>> x[2, 3] = float("nan")
    >>> gcp(x, 1, mask=~x.isnan()).to_dense()[2, 3].round(decimals=2)
    tensor(12.)
    """
    _check.iterations(max_iter, stop)
    kind = _kind(loss)
    work = _prepare(x, rank, kind, mask)
    bounded = kind.nonnegative if nonnegative is None else nonnegative
    shape, scale = tuple(x.shape), torch.ones(1, dtype=torch.float64, device=x.device)
    if kind.scales:
        work, scale = _scale_to_unit(work, mask)
        if not bool(work.any()):
            return CP(tuple([x.new_zeros(n, rank) for n in shape]))
    size = (x.numel() / rank) ** (0.5 / x.ndim)
    vector = torch.cat(
        [f.flatten() * size for f in random_factors(shape, rank, 1, work, generator, signed=not bounded)]
    )
    count = 0

    def after(value: float) -> None:
        nonlocal count
        count += 1
        if callback is not None:
            callback(count - 1, max_iter, {"loss": value})

    for place, stage in enumerate(kind.stages):
        left = (max_iter - count) // (len(kind.stages) - place)
        function = partial(_evaluate, stage, work, mask, rank)
        vector = minimise(function, vector, nonnegative=bounded, max_iter=left, stop=stop, after=after)
    factors = balance_components(_factors(vector, shape, rank), scale)
    return CP(tuple([factor[0].to(x.dtype) for factor in factors]))


def _kind(loss: str | Loss) -> _Kind:
    if callable(loss):
        return _Kind((loss,), scales=False)
    if loss not in _KINDS:
        raise ValueError(f"loss={loss!r} is not known; give a function, or choose from {', '.join(_KINDS)}")
    return _KINDS[loss]


def _prepare(x: Tensor, rank: int, kind: _Kind, mask: Tensor | None) -> Tensor:
    """Check the arguments; x without what was not observed, in the dtype of computation."""
    check_rank(rank, tuple(_check.dimensions("x", _check.floating("x", x), 2).shape))
    x = x.detach().to(torch.float32 if x.dtype not in (torch.float32, torch.float64) else x.dtype)
    if mask is not None:
        check_shows(check_mask(mask, x).any())
    least, most = max(kind.least, -math.inf), kind.most
    values = x if mask is None else x[mask]
    _check.finite("x", values)
    if bool(((values < least) | (values > most)).any()):
        raise ValueError(f"x has entries from {float(values.min())} to {float(values.max())}; this loss allows "
                         f"{least} to {most}")  # fmt: skip
    return (x if mask is None else torch.where(mask, x, max(least, 0.0))).contiguous()


def _scale_to_unit(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """x with a root mean square of 1 over the entries observed, and what it was divided by."""
    largest = x.abs().max()
    if float(largest) == 0:
        return x, largest.double().view(1)
    x = x / largest
    mean = x.double().square().sum() / (x.numel() if mask is None else mask.sum())
    return x / mean.sqrt().to(x.dtype), (largest * mean.sqrt()).view(1)


def _factors(vector: Tensor, shape: tuple[int, ...], rank: int) -> list[Tensor]:
    """Views (1, R, I_n) of a vector that holds all factors."""
    parts = vector.split([rank * n for n in shape])
    return [part.view(1, rank, n) for part, n in zip(parts, shape, strict=True)]


def _evaluate(loss: Loss, x: Tensor, mask: Tensor | None, rank: int, vector: Tensor) -> tuple[float, Tensor]:
    """The mean loss at these factors and its gradient."""
    factors = _factors(vector, tuple(x.shape), rank)
    m = CP(tuple([factor[0].mT for factor in factors])).to_dense().requires_grad_()
    with torch.enable_grad():
        losses = loss(x, m)
        if mask is not None:
            losses = torch.where(mask, losses, 0)
        mean = losses.sum(dtype=torch.float64) / (x.numel() if mask is None else mask.sum())
        (change,) = torch.autograd.grad(mean, m)
    gradient = torch.cat([product.flatten() for _, product in mttkrp_sweep(change.unsqueeze(0), factors)])
    return float(mean.detach()), gradient
