"""The closest product of two block-diagonal matrices with a permutation between them."""

from __future__ import annotations

from torch import Tensor

from polyad._card import Paper, method
from polyad.decompose.matrices.nearest_block_tensor_train import nearest_block_tensor_train
from polyad.formats import Monarch


@method(
    "decompose",
    makes=Monarch,
    example={"x": (6, 8)},
    papers=(
        Paper(
            "Dao, Chen, Sohoni, Desai, Poli, Grogan, Liu, Rao, Rudra, Ré",
            2022,
            "Monarch: Expressive Structured Matrices for Efficient and Accurate Training",
            "arXiv:2204.00595",
            adds="the format and its projection: the leading singular vectors of every block",
        ),
    ),
)
def nearest_monarch(x: Tensor, *, blocks: tuple[int, int] | None = None, interleaved: str = "rows") -> Monarch:
    """The Monarch matrix closest to x in the Frobenius norm.

    x has shape (*batch, n, m); ``blocks`` = (J, K) cuts it into J x K blocks, by default the divisors of n and m
    nearest their roots, and ``interleaved`` says which side the blocks take in steps (see ``Monarch``). Every block
    gets its best approximation of rank one, which is optimal for the whole.

    The factors keep x's dtype and have blocks of equal norms; half precision is computed in float32. Cost: an
    eigenvalue problem of size min(n / J, m / K) a block. Gradients flow as those of ``polyad.linalg.truncated_svd``.

    Raises ValueError for blocks that do not divide x, and for NaN and infinities.

    >>> planted = Monarch.random((12, 20), generator=torch.Generator().manual_seed(0))
    >>> fit = nearest_monarch(planted.to_dense())
    >>> fit.blocks, bool((fit.to_dense() - planted.to_dense()).norm() < 1e-5 * planted.norm())
    ((3, 4), True)
    """
    train = nearest_block_tensor_train(x, 1, blocks=blocks, interleaved=interleaved)
    return Monarch(train.left.squeeze(-1), train.right.squeeze(-3), interleaved)
