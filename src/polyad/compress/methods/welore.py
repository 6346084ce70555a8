"""Plain SVD with ranks that one threshold on normalised singular values decides."""

from __future__ import annotations

from torch import Tensor

from polyad._card import method
from polyad.allocate.global_threshold import WELORE, global_threshold
from polyad.decompose.matrices.svd import spectrum, svd
from polyad.formats import LowRank
from polyad.statistics import Moments


@method("factor", makes=LowRank, papers=(WELORE,), curve=spectrum, allocate=global_threshold, example={"rank": 2})
def welore(weight: Tensor, stats: Moments | None, rank: int) -> LowRank:  # noqa: ARG001 - reads no data
    """The truncated SVD of a weight, its rank chosen by ``global_threshold`` over all layers at once.

    weight of shape (out, in); both factors carry the square root of the singular values, so that fine-tuning them
    alone, as the paper does, starts balanced. Layers whose factors would cost more than the matrix stay dense: the
    paper's N-LRCs, which it freezes. Cost: O(out in min(out, in)). Raises for ranks beyond the smaller side.

    >>> import torch
    >>> welore(torch.eye(3)[:, :2], None, 1).shape
    (3, 2)
    """
    return svd(weight, rank)
