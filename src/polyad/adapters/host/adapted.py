"""A layer with adapters on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from polyad.adapters.adapter import Adapter
from polyad.adapters.frozen.fold_threshold import NEVER, Folds, fold_from
from polyad.adapters.frozen.folded_product import folded
from polyad.adapters.frozen.frozen import Frozen, suffix
from polyad.adapters.frozen.layer_kinds import frozen
from polyad.adapters.frozen.low_rank_product import traced
from polyad.adapters.host.stand_in import Common, Made, Standing
from polyad.formats import Format, LowRank
from polyad.layers.linear import as_autocast

FEW = 8
"""Up to how many rows a method is asked for ``few``."""


class Term(NamedTuple):
    """One adapter of a layer: its change counts ``weight`` times, once where that is None."""

    adapter: Adapter
    base: Frozen
    weight: Tensor | None
    dropout: float
    structured: bool
    """Whether the change is the update's product and nothing else."""
    whole: bool
    """Whether the adapter has the changed output for less than the layer's and a change."""
    few: bool
    """Whether the adapter has the change of a few rows for less than its update."""
    folds: Folds


class Adapted(Standing):
    """A layer with named adapters. The layer's own parameters keep their names in the state dict.

    The output is the layer's and the weighted sum of the active adapters' changes, each relative to the frozen layer,
    so that their order does not matter.
    """

    def __init__(self, layer: nn.Module, common: Common) -> None:
        super().__init__(layer, common)
        base = frozen(layer)
        assert base is not None
        self.base = base
        self.reads_output, self.folds = False, False

    def add(self, name: str, adapter: Adapter, base: Frozen, made: Made) -> None:
        """Hold an adapter; ``activate`` lets it act. A fused weight may hold several of one name, one a part."""
        adapter.dropout = made.dropout
        key = name + suffix(base.part)
        structured = type(adapter).forward is Adapter.forward
        folds = fold_from(adapter, base) if structured else Folds(NEVER, NEVER, False)
        dropout = 0.0 if adapter.drops else made.dropout
        whole = base.part is None and type(adapter).changed is not Adapter.changed
        few = base.kind == "linear" and type(adapter).few is not Adapter.few
        self.hold(key, Term(adapter, base, None, dropout, structured, whole, few, folds), made)
        self._note()

    def remove(self, name: str) -> None:
        super().remove(name)
        self._note()

    def _note(self) -> None:
        terms = [term for own in self.routes.values() for term in own]
        self.reads_output = any(term.adapter.reads_output for term in terms)
        self.folds = not self.reads_output and any(
            min(term.folds.plain, term.folds.trained) < NEVER for term in terms
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.common.rows is not None:
            return self._routed(x, self.common.rows)
        terms = self.terms
        if not terms or self.original is not None:
            return self.layer(x)
        if len(terms) == 1 and terms[0].whole and terms[0].weight is None:
            adapter, base, _, dropout, *_ = terms[0]
            if not (dropout and self.training):
                return adapter.changed(x, base)
        if self.reads_output:
            y = self.base(x)
            return self.base.biased(self._changed(y, x, y, terms))
        if self.folds and not self.base.watched:
            return self._folded(x, terms)
        return self._changed(None, x, None, terms)

    def _changed(self, total: Tensor | None, x: Tensor, y: Tensor | None, terms: Sequence[Term]) -> Tensor:
        """``total`` and the changes of these terms; the layer's output and them where total is None."""
        for term in terms:
            adapter, base, weight, dropout, structured, *_ = term
            dropout = dropout if self.training else 0.0
            if structured and weight is None and base.part is None:
                total = self._added(total, x, term, dropout)
                continue
            held: Tensor = self.layer(x) if total is None else total
            own = y if y is None or base.part is None else y[..., base.part[0] : base.part[1]]
            change = (_run(adapter, x, own, base, dropout) * adapter.scale).to(held.dtype)
            if base.part is not None:
                change = F.pad(change, (base.part[0], held.shape[-1] - base.part[1]))
            total = held + (change if weight is None else weight * change)
        return self.layer(x) if total is None else total

    def _added(self, total: Tensor | None, x: Tensor, term: Term, dropout: float) -> Tensor:
        """``total``, or the layer's output, and an update of all of the layer."""
        adapter, base = term.adapter, term.base
        if term.few and not dropout and not torch.is_grad_enabled() and not traced() and base.rows(x) <= FEW:
            change = adapter.few(as_autocast(x))
            if change is not None:
                return torch.add(self.layer(x) if total is None else total, change, alpha=adapter.scale)
        update = adapter.update(base)
        if total is None and isinstance(update, LowRank) and base.joins(x):
            return base.joined(update, x, adapter.scale, dropout)
        return base.onto(self.layer(x) if total is None else total, update, x, adapter.scale, dropout)

    def _folded(self, x: Tensor, terms: Sequence[Term]) -> Tensor:
        """The layer with those updates in its weight that are cheaper there, and the changes of the others."""
        rows, grad = self.base.rows(x), torch.is_grad_enabled()
        least = [t.folds.trained if grad else t.folds.plain for t in terms]
        within = [
            t for t, from_ in zip(terms, least, strict=True) if rows >= from_ and not (t.dropout and self.training)
        ]
        if not within:
            return self._changed(None, x, None, terms)
        total = self._structured(x, within[0]) if len(within) == 1 else None
        if total is None:
            total = self.base.biased(self.base.product(x, self._changed_weight(within)))
        return self._changed(total, x, None, [t for t in terms if not any(t is other for other in within)])

    def _structured(self, x: Tensor, term: Term) -> Tensor | None:
        """The layer with an update in its weight, which is not kept for the gradient; None where that cannot be."""
        if term.weight is not None or not term.base.joins(x):
            return None
        update, weight = term.adapter.update(term.base), self.base.held
        if not isinstance(update, Format) or not isinstance(weight, Tensor) or update.dtype != x.dtype:
            return None
        own = term.folds.structured
        return folded(x, weight, self.base.bias, update, term.adapter.scale, structured=own)

    def _changed_weight(self, terms: Sequence[Term]) -> Tensor:
        """The weight with these updates, in its own dtype; summed in theirs where that is finer."""
        held = self.base.weight
        total = held
        for adapter, base, weight, *_ in terms:
            update = base.dense(adapter.update(base)) * adapter.scale
            update = update if weight is None else update * weight
            if base.part is not None:
                update = F.pad(update, (0, 0, base.part[0], total.shape[0] - base.part[1]))
            total = total + update
        return total.to(held.dtype)

    def _routed(self, x: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        """Each row of the batch with its own adapter."""
        if x.shape[0] != self.common.batch:
            raise ValueError(
                f"an adapter was named for each of {self.common.batch} rows, and a layer got {x.shape[0]}; name one "
                "for every row of the batch"
            )
        y = self.base(x) if self.reads_output else None
        total = self.layer(x) if y is None else y
        for name, index in rows.items():
            terms = self.routes.get(name)
            if terms is not None:
                own = None if y is None else y[index]
                total = total.index_copy(0, index, self._changed(total[index], x[index], own, terms))
        return total if y is None else self.base.biased(total)

    def updates(self, name: str) -> Iterator[tuple[str, LowRank | Tensor]]:
        for adapter, base, *_ in self.routes[name]:
            update = adapter.update(base)
            update = update if isinstance(update, LowRank) else base.dense(update).flatten(1)
            yield suffix(base.part), update * adapter.scale

    def changed(self) -> Tensor:
        """The weight with all active updates, in the layer's own dtype and layout."""
        with torch.no_grad():
            total = self._changed_weight(self.terms)
        return total.mT.contiguous() if self.base.transposed else total

    def merge(self, changed: Tensor, *, keep: bool = True) -> None:
        """Put a changed weight into the layer's parameter; with ``keep`` the original stays beside it."""
        weight = self._parameters["weight"]
        assert weight is not None
        self.original = weight.data if keep else None
        weight.data = changed

    def unmerge(self) -> None:
        """Put the original back, bit by bit; does nothing where nothing is merged."""
        weight = self._parameters.get("weight")
        if weight is not None and self.original is not None:
            weight.data = self.original.to(device=weight.device, dtype=weight.dtype)
            self.original = None


def _run(run: Callable[..., Tensor], x: Tensor, y: Tensor | None, base: Frozen, dropout: float) -> Tensor:
    """What an adapter gives; where inputs are dropped it runs again for the gradient, so that x alone is kept."""
    if not dropout:
        return run(x, y, base)
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return run(F.dropout(x, dropout), y, base)
    found = checkpoint(lambda x, y: run(F.dropout(x, dropout), y, base), x, y, use_reentrant=False)
    assert isinstance(found, Tensor)
    return found


__all__ = ["Adapted", "Term"]
