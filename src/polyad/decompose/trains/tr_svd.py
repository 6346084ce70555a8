"""The tensor ring of a dense tensor by truncated singular value decompositions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.decompose.trains.tt_svd import split_off_cores
from polyad.formats import TensorRing
from polyad.formats.networks.tensor_train import bond_ranks
from polyad.linalg import near_unit
from polyad.linalg.trains import right_basis, split_error

ZHAO = Paper("Zhao, Zhou, Xie, Zhang, Cichocki", 2016, "Tensor ring decomposition", "arXiv:1606.05535")


@method("decompose", makes=TensorRing, example={"rank": 2}, papers=(ZHAO,))
def tr_svd(
    x: Tensor,
    rank: int | Sequence[int] | None = None,
    *,
    tol: float | None = None,
    first: int | None = None,
    batch: int = 0,
) -> TensorRing:
    """A tensor ring of x, of given ranks, or with a relative Frobenius error of at most ``tol``.

    x has shape (*batch, I₁, …, I_N) with ``batch`` leading dimensions that count tensors; these share the largest
    rank that one of them needs. ``rank`` gives (r_0, …, r_{N-1}) with r_n to the left of mode n, or one number for
    all; bonds that the shape keeps smaller stay so. With ``tol`` the rank R found for the unfolding of the first mode
    is split into r_0 r_1 = R, as evenly as its divisors allow, so a prime R makes a train; ``first`` states r_0
    instead, and r_1 is then R / r_0 rounded up, the columns that lack being zero. The first cut may leave √2 times
    the error of the others. Cores have x's dtype; half precision is computed in float32, and ``tol`` holds before
    they are rounded back.

    Where x is a ring, its own ranks are found only by luck: the basis of the first unfolding comes without its split
    in two, and later ranks grow by that. ``tr_als`` finds smaller rings. Costs a Gram matrix of each unfolding, the
    first over x, the others over r_0 copies of its rest. Gradients flow to x.

    Departs from the paper in what it leaves open, ``rank`` and ``first``.

    Raises ValueError for NaN and infinities, ranks below 1, and unless one of rank and tol is given.

    >>> planted = TensorRing.random((6, 5, 4), generator=torch.Generator().manual_seed(0))
    >>> fit = tr_svd(planted.to_dense(), tol=1e-5)
    >>> fit.rank, bool((fit.to_dense() - planted.to_dense()).norm() < 1e-5 * planted.norm())
    ((2, 2, 8), True)
    """
    _check.floating("x", x)
    _check.batch(batch, x, 1)
    _check.exactly_one(rank=rank, tol=tol)
    if tol is not None:
        _check.tolerance(tol)
    if first is not None and (first < 1 or rank is not None):
        raise ValueError(f"first={first} must be at least 1, and goes with tol; with rank, r_0 is rank[0]")
    shape = tuple(x.shape[batch:])
    ranks = None if rank is None else bond_ranks(rank, len(shape), f"a ring of shape {shape}")
    work, scale = near_unit(x if x.dtype in (torch.float32, torch.float64) else x.float(), x.ndim - batch)
    if len(shape) == 1:
        return TensorRing((x,))
    share = split_error(tol, len(shape), work.dtype)
    u, rest, outer = _split_first_core(work.flatten(batch + 1), ranks, share, first)
    inner = None if ranks is None else ranks[2:]
    cores = [u, *split_off_cores(rest, shape[1:], inner, share, "left")]
    if scale is not None:
        cores[-1] = cores[-1] * scale[..., None, None, None]
    assert cores[-1].shape[-1] == outer
    return TensorRing(tuple([core.to(x.dtype).contiguous() for core in cores]))


def _split_first_core(
    m: Tensor, ranks: Sequence[int] | None, tol: float | None, first: int | None
) -> tuple[Tensor, Tensor, int]:
    """Split the unfolding m: the first core (*batch, r_0, I_1, r_1), the rest (*batch, r_1, others, r_0), and r_0."""
    limit = min(m.shape[-2:])
    whole = None if ranks is None else min(limit, ranks[0] * ranks[1])
    u = right_basis(m.mT, whole, None if tol is None else min(tol * 2**0.5, 1 - 1e-9)).mT
    columns = u.shape[-1]
    if ranks is None:
        r = first or max(k for k in range(1, math.isqrt(columns) + 1) if columns % k == 0)
    else:
        r = min(ranks[0], limit)
    s = -(-columns // r)
    pad = (0, r * s - columns)
    rest = torch.nn.functional.pad((u.mT @ m).mT, pad)  # (*batch, others, r s)
    u = torch.nn.functional.pad(u, pad).unflatten(-1, (r, s)).transpose(-3, -2)
    return u, rest.unflatten(-1, (r, s)).movedim(-1, -3), r
