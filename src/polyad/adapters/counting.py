"""How many rows it takes until adding an update to the weight costs less than applying it beside the weight."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen import Frozen
from polyad.einsum import operations
from polyad.formats import Format, LowRank
from polyad.formats._multilinear import _Multilinear

NEVER = math.inf
ROWS = 1024
"""The number of rows at which a format is asked what a row costs."""

MOVED = 16
"""Operations that writing and reading one number of the folded weight counts as."""

WORTH = 0.1
"""The share of the layer's own product that folding must save, since it takes the memory of a weight."""


def fold_from(adapter: Adapter, base: Frozen) -> tuple[float, float]:
    """The least numbers of rows for which folding is cheaper, without and with gradients; infinite where never.

    Applied, an update of ``a`` operations a row costs n a, and twice that again for gradients. Folded, it costs its
    dense form and the weight's traffic, three times with gradients, and the product of a gradient with x.
    """
    if not base.mergeable or base.kind == "embedding":
        return NEVER, NEVER
    with torch.no_grad():
        update = adapter.update(base)
    if isinstance(update, Tensor):
        return 0, 0
    if isinstance(update, LowRank) and 20 * update.rank <= min(update.shape[-2:]):
        return NEVER, NEVER  # by the rule below; most adapters are these, and attaching should be quick
    out, n = matrix(base.shape)
    if len(update.shape) != 2:
        return 0, 0
    product, each = 2 * out * n, update.flops(ROWS) / ROWS
    formed = _forming(update, n) + MOVED * out * n
    plain = _first(formed, each - WORTH * product)
    return plain, _first(3 * formed, 3 * each - (1 + WORTH) * product)


def _forming(update: Format, columns: int) -> int:
    """Operations of ``to_dense``, or of applying the update to a unit matrix where that is not known."""
    if isinstance(update, _Multilinear):
        expression, operands = update.batched()
        return operations(expression, tuple(tuple(t.shape) for t in operands))
    return update.flops(columns)


def _first(once: float, saved: float) -> float:
    """How many rows repay a cost."""
    return math.ceil(once / saved) if saved > 0 else NEVER
