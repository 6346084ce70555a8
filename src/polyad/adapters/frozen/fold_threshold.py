"""The number of rows from which adding an update to the weight costs less than applying it beside the weight."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.format_gradients import GRADIENTS
from polyad.adapters.frozen.frozen import Frozen
from polyad.einsum import operations
from polyad.formats import Circulant, Format, LowRank, Product, Toeplitz
from polyad.formats.networks.multilinear import Multilinear

NEVER = math.inf
ROWS = 1024
"""The number of rows at which a format is asked what a row costs."""

MOVED = 16
"""Operations that writing and reading one number of the folded weight counts as."""

WORTH = 0.1
"""The share of the layer's own product that folding must save, since it takes the memory of a weight."""

TRANSFORMED = 8
"""The time of an operation of a fast Fourier transform, in those of a product of matrices."""


class FoldThresholds(NamedTuple):
    """The numbers of rows from which adding an update to the weight is cheaper than applying it beside the weight."""

    plain: float
    """Without gradients; infinite where never."""
    trained: float
    """With them."""
    structured: bool
    """True where the update's gradients are then taken by its structure, not from a dense gradient of the weight."""


def fold_thresholds(adapter: Adapter, base: Frozen) -> FoldThresholds:
    """Count from how many rows on an adapter's update is folded into the weight.

    Applied, an update of ``a`` operations a row costs n a, and twice that again for gradients. Folded, it costs its
    dense form and the weight's traffic, and with gradients either both three times and the product of a gradient
    with x, or both twice and the operations that ``GRADIENTS`` states for its kind, whichever is less.
    """
    if base.function is not None or not base.mergeable or base.kind == "embedding":
        return FoldThresholds(NEVER, NEVER, False)
    with torch.enable_grad():  # what is frozen has no gradient to count
        update = adapter.update(base)
    if isinstance(update, Tensor):
        return FoldThresholds(0, 0, False)
    if isinstance(update, LowRank) and 20 * update.rank <= min(update.shape[-2:]):
        return FoldThresholds(
            NEVER, NEVER, False
        )  # by the rule below; most adapters are these, and attaching should be quick
    out, n = matrix(base.shape)
    if len(update.shape) != 2:
        return FoldThresholds(0, 0, False)
    product, each = 2 * out * n, _slowness(update) * update.flops(ROWS) / ROWS
    formed = _operations_to_form(update, n) + MOVED * out * n
    fits = base.kind == "linear" and type(update) in GRADIENTS and update.dtype == base.weight.dtype
    of_gradients = GRADIENTS[type(update)][1](update) if fits else NEVER
    structured = of_gradients <= product
    applied = 2.5 * each if isinstance(update, LowRank) and not update.right.requires_grad else 3 * each
    trained = (
        _rows_to_repay(2 * formed, applied - of_gradients - WORTH * product)
        if structured
        else _rows_to_repay(3 * formed, 3 * each - (1 + WORTH) * product)
    )
    return FoldThresholds(_rows_to_repay(formed, each - WORTH * product), trained, structured)


def _slowness(update: Format) -> int:
    """The time of an operation of a format, in those of a product of matrices."""
    parts = update.factors if isinstance(update, Product) else (update,)
    return TRANSFORMED if any(isinstance(part, Circulant | Toeplitz) for part in parts) else 1


def _operations_to_form(update: Format, columns: int) -> int:
    """Operations of ``to_dense``, or of applying the update to a unit matrix where that is not known."""
    if isinstance(update, Multilinear):
        expression, operands = update.batch_network()
        return operations(expression, tuple(tuple(t.shape) for t in operands))
    return 0 if isinstance(update, Circulant | Toeplitz) else update.flops(columns)  # those are windows of a line


def _rows_to_repay(once: float, saved: float) -> float:
    """The number of rows that repay a cost."""
    return math.ceil(once / saved) if saved > 0 else NEVER
