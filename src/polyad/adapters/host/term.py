"""One adapter of a layer: its change, and what the host may assume of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from polyad.adapters.adapter import Adapter
from polyad.adapters.frozen.fold_threshold import NEVER, FoldThresholds, fold_thresholds
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import LowRank


class Term(NamedTuple):
    """One adapter of a layer: its change counts ``weight`` times, once where that is None."""

    adapter: Adapter
    base: Frozen
    weight: Tensor | None
    dropout: float
    structured: bool
    """The change is the update's product and nothing else."""
    whole: bool
    """The adapter has the changed output for less than the layer's and a change."""
    few: bool
    """The adapter has the change of a few rows for less than its update."""
    folds: FoldThresholds


def term_of(adapter: Adapter, base: Frozen, dropout: float) -> Term:
    """The term of an adapter on a frozen weight, with what its class overrides noted."""
    kind = type(adapter)
    structured = kind.forward is Adapter.forward
    return Term(
        adapter,
        base,
        weight=None,
        dropout=0.0 if adapter.drops else dropout,
        structured=structured,
        whole=base.part is None and kind.output is not Adapter.output,
        few=base.kind == "linear" and kind.few is not Adapter.few,
        folds=fold_thresholds(adapter, base) if structured else FoldThresholds(NEVER, NEVER, False),
    )


def low_rank_updates(terms: Sequence[Term]) -> tuple[LowRank, ...] | None:
    """The updates of these adapters to the weight; None where one of them is no such update, or changes more."""
    updates = list[LowRank]()
    for adapter, base, weight, _, structured, *_ in terms:
        update = adapter.update(base) if structured and base.part is None else None
        if not isinstance(update, LowRank) or type(adapter).bias_update is not Adapter.bias_update:
            return None
        updates.append(update * adapter.scale if weight is None else update * adapter.scale * weight)
    return tuple(updates)


def change(run: Callable[..., Tensor], x: Tensor, y: Tensor | None, base: Frozen, dropout: float) -> Tensor:
    """The result of an adapter; where inputs are dropped it runs again for the gradient, so that x alone is kept."""
    if not dropout:
        return run(x, y, base)
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return run(F.dropout(x, dropout), y, base)
    result = checkpoint(lambda x, y: run(F.dropout(x, dropout), y, base), x, y, use_reentrant=False)
    assert isinstance(result, Tensor)
    return result
