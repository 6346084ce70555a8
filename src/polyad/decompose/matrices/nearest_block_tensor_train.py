"""The closest block tensor train of a matrix."""

from __future__ import annotations

from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import BlockTensorTrain
from polyad.formats.structured.grid import check_blocks, check_interleaved, split_blocks
from polyad.linalg import block_svd


@method(
    "decompose",
    makes=BlockTensorTrain,
    example={"x": (6, 8), "rank": 1},
    papers=(
        Paper(
            "Qiu, Potapczynski, Finzi, Goldblum, Wilson",
            2024,
            "Compute Better Spent: Replacing Dense Layers with Structured Matrices",
            "arXiv:2406.06248",
            adds="the format; the projection onto it is that of Monarch with more than one singular vector a block",
        ),
    ),
)
def nearest_block_tensor_train(
    x: Tensor,
    rank: int | None = None,
    *,
    tol: float | None = None,
    blocks: tuple[int, int] | None = None,
    interleaved: str = "rows",
) -> BlockTensorTrain:
    """The best block tensor train of ``rank``, or of the least rank with a relative error of at most ``tol``.

    x has shape (*batch, n, m); ``blocks`` = (J, K) cuts it into J x K blocks, by default the divisors of n and m
    nearest their roots, and ``interleaved`` says which side the blocks take in steps (see ``BlockTensorTrain``).
    Every block gets its best approximation of this rank, so the whole is optimal in the Frobenius norm for these
    blocks. ``tol`` holds for each matrix of a batch, which shares one rank; a rank of min(n / J, m / K) is exact.

    The cores keep x's dtype; half precision is computed in float32. Cost: J K singular value decompositions of
    (n / J, m / K) matrices. Gradients flow as those of ``polyad.linalg.truncated_svd`` do.

    Raises ValueError for blocks that do not divide x, a rank beyond a block, NaN and infinities, and unless one of
    rank and tol is given.

    >>> planted = BlockTensorTrain.random((12, 20), generator=torch.Generator().manual_seed(0))
    >>> fit = nearest_block_tensor_train(planted.to_dense(), tol=1e-5)
    >>> fit.rank, fit.blocks, bool((fit.to_dense() - planted.to_dense()).norm() < 1e-5 * planted.norm())
    (2, (3, 4), True)
    """
    _check.floating("x", x)
    _check.finite("x", _check.dimensions("x", x, 2))
    _check.exactly_one(rank=rank, tol=tol)
    n, m = x.shape[-2:]
    j, k = check_blocks(blocks, n, m)
    if rank is not None:
        _check.rank(rank, min(n // j, m // k), f"what a block of shape {(n // j, m // k)} has")
    if tol is not None:
        _check.tolerance(tol)
    left, right = block_svd(split_blocks(x, (j, k), check_interleaved(interleaved)), rank, tol=tol)
    left, right = left.to(x.dtype).transpose(-3, -2), right.to(x.dtype).movedim(-4, -2)
    return BlockTensorTrain(left.contiguous(), right.contiguous(), interleaved)
