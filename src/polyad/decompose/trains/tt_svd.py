"""The tensor train of a dense tensor by truncated singular value decompositions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.decompose.trains._sketch import factor_by_sketch
from polyad.formats import TensorTrain
from polyad.formats.networks.tensor_train import bond_ranks
from polyad.linalg import near_unit, single_or_double
from polyad.linalg.modes import halfway
from polyad.linalg.trains import right_basis, split_error

Ranks = Sequence[int] | None

_LARGE = 2**16
"""Numbers from which a sketch is worth its overhead."""


@method(
    "decompose",
    makes=TensorTrain,
    example={"rank": 3},
    papers=(
        Paper("Oseledets", 2011, "Tensor-train decomposition", "doi:10.1137/090752286"),
        Paper(
            "Halko, Martinsson, Tropp",
            2011,
            "Finding structure with randomness: probabilistic algorithms for constructing approximate matrix "
            "decompositions",
            "doi:10.1137/090771806",
            adds="the range finder of the balanced unfolding, checked afterwards against the whole tensor",
        ),
    ),
)
def tt_svd(
    x: Tensor,
    rank: int | Sequence[int] | None = None,
    *,
    tol: float | None = None,
    batch: int = 0,
    generator: Generator | None = None,
) -> TensorTrain:
    """The tensor train of x, of given ranks or of the least for which the relative Frobenius error is below ``tol``.

    x has shape (*batch, I₁, …, I_N) with ``batch`` leading dimensions that count tensors; these share the largest
    rank that one of them needs. ``rank`` gives a number for each of the N - 1 bonds, or one for all; bonds that the
    shape keeps smaller stay so. Then the error is at most √(N - 1) times the least possible of these ranks. The cores
    have x's dtype, which may be complex; half precision is computed in float32, and ``tol`` holds before they are
    rounded back.

    The modes are taken off from both ends, each time where the unfolding is shorter, so that the long matrices are
    also the flattest: the errors of these nested projections add up squared, each may take tol/√(N - 1).

    With ``tol``, a large single tensor is first split in the middle: some columns suggest a basis of k vectors,
    one product of 2 k numel(x) operations projects onto it, and what the basis misses is measured over all of x (in
    float64 from two norms, otherwise by subtracting). The halves, k √numel(x) numbers, take what is left of ``tol``.
    Random sums of the rows follow where columns do not suffice, and then the exact way, which is also that of
    gradients. ``generator`` draws columns and sums; ranks may exceed the least where tails fall slowly.

    >>> planted = TensorTrain.random((6, 5, 4, 6), generator=torch.Generator().manual_seed(0))
    >>> fit = tt_svd(planted.to_dense(), tol=1e-5)
    >>> fit.rank, bool((fit - planted).norm() < 1e-5 * planted.norm())
    ((3, 4, 3), True)
    """
    _check.floating("x", x, complex_too=True)
    _check.batch(batch, x, 1)
    _check.exactly_one(rank=rank, tol=tol)
    if tol is not None:
        _check.tolerance(tol)
    shape = tuple(x.shape[batch:])
    ranks = None if rank is None else bond_ranks(rank, len(shape) - 1, f"x of shape {tuple(x.shape)}")
    work, scale = near_unit(single_or_double(x), x.ndim - batch)
    flat = work.reshape(*x.shape[:batch], 1, -1, 1)
    split = None
    if tol is not None and not batch and work.numel() >= _LARGE and not _must_be_exact(work) and len(shape) > 2:
        split = _split_in_halves(work, tol, generator)
    cores = split or split_off_cores(flat, shape, ranks, split_error(tol, len(shape) - 1, work.dtype))
    if scale is not None:
        cores[0] = cores[0] * scale[..., None, None, None]
    return TensorTrain.from_three_way(cores, x)


def split_off_cores(
    x: Tensor, shape: Sequence[int], ranks: Ranks, tol: float | None, side: str = "both"
) -> list[Tensor]:
    """Split off cores (*batch, r, n, s) of x (*batch, a, prod(shape), b), orthonormal but for the last one taken.

    Of ``both`` ends the one whose unfolding is shorter is taken off first; ``left`` and ``right`` take off one alone.
    Each basis leaves at most ``tol`` of what it is given; ``ranks`` has a number for each bond inside.
    """
    i, j = 0, len(shape) - 1
    front: list[Tensor] = []
    back: list[Tensor] = []
    a, b = x.shape[-3], x.shape[-1]
    while i < j:
        if side != "right" and (side == "left" or a * shape[i] <= shape[j] * b):
            m = x.reshape(*x.shape[:-3], a * shape[i], -1)
            u = _basis(m.mT, None if ranks is None else ranks[i], tol).mT
            front.append(u.reshape(*u.shape[:-2], a, shape[i], -1))
            a, i, x = u.shape[-1], i + 1, u.mH @ m
        else:
            m = x.reshape(*x.shape[:-3], -1, shape[j] * b)
            v = _basis(m, None if ranks is None else ranks[j - 1], tol)
            back.append(v.reshape(*v.shape[:-1], shape[j], b))
            b, j, x = v.shape[-2], j - 1, m @ v.mH
        x = x.reshape(*x.shape[:-2], a, -1, b)
    return [*front, x, *reversed(back)]


def _basis(m: Tensor, rank: int | None, tol: float | None) -> Tensor:
    return right_basis(m, None if rank is None else min(rank, *m.shape[-2:]), tol)


def _must_be_exact(x: Tensor) -> bool:
    """True where a sketch would lose a gradient, for complex numbers, or where there are no numbers."""
    return x.is_meta or x.is_complex() or (x.requires_grad and torch.is_grad_enabled())


def _split_in_halves(x: Tensor, tol: float, generator: Generator | None) -> list[Tensor] | None:
    """Split in the middle by a sketch, then the halves exactly; the cores, or None where no sketch suffices."""
    shape = tuple(x.shape)
    middle = halfway(shape)
    matrix = x.reshape(math.prod(shape[:middle]), -1)
    factors = factor_by_sketch(matrix, tol, generator)
    if factors is None:
        return None
    q, b, missed = factors
    share = split_error(tol - missed, len(shape) - 1, torch.float64)
    lead, *right = split_off_cores(b.double().reshape(1, -1, 1), (b.shape[0], *shape[middle:]), None, share, "right")
    left = split_off_cores((q.double() @ lead[0]).unsqueeze(0), shape[:middle], None, share, "left")
    return [core.to(x.dtype) for core in (*left, *right)]
