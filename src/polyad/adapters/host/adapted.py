"""A layer with adapters on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyad.adapters.adapter import Adapter
from polyad.adapters.frozen.fold_threshold import NEVER
from polyad.adapters.frozen.folded_product import folded_product
from polyad.adapters.frozen.frozen import Frozen, suffix
from polyad.adapters.frozen.layer_kinds import can_drop, frozen_view
from polyad.adapters.frozen.low_rank_product import is_traced
from polyad.adapters.host.changed_call import call_by_rows, call_changed
from polyad.adapters.host.routing import Routing
from polyad.adapters.host.stand_in import AdapterSpec, Common, StandIn
from polyad.adapters.host.term import Term, change, low_rank_updates, term_of
from polyad.adapters.host.unsharded import whole_adapter, whole_base
from polyad.formats import Format, LowRank
from polyad.layers.linear import as_autocast

FEW = 8
"""The most rows for which a method is asked for ``few``."""


class Adapted(StandIn):
    """A layer with named adapters. The layer's own parameters keep their names in the state dict.

    The output is the layer's and the weighted sum of the active adapters' changes, each relative to the frozen layer,
    so that their order does not matter.
    """

    def __init__(self, layer: nn.Module, common: Common) -> None:
        super().__init__(layer, common)
        base = frozen_view(layer)
        assert base is not None
        self.base, self.own = base, base.own
        self.reads_output, self.folds = False, False

    def add(self, name: str, adapter: Adapter, base: Frozen, spec: AdapterSpec) -> None:
        """Hold an adapter; ``activate`` lets it act. A fused weight may hold several of one name, one a part."""
        dropout = spec.dropout if can_drop(base) else 0.0
        adapter.dropout = dropout
        self.hold(name + suffix(base.part), term_of(adapter, base, dropout), spec)
        self._note_terms()

    def remove(self, name: str) -> None:
        super().remove(name)
        self._note_terms()

    def _note_terms(self) -> None:
        terms = [term for route in self.routes.values() for term in route]
        self.reads_output = any(term.adapter.reads_output for term in terms)
        self.folds = not self.reads_output and any(
            min(term.folds.plain, term.folds.trained) < NEVER for term in terms
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        terms, routing = self.terms, self.common.routings.current
        if routing is None and (not terms or self.original is not None):
            return self.layer(*args, **kwargs)
        if len(args) + len(kwargs) != 1 or self.own:
            if routing is not None:
                return call_by_rows(self, routing, args, kwargs)
            return call_changed(self, terms, args, kwargs)
        x = args[0] if args else next(iter(kwargs.values()))
        if routing is not None:
            return self._route_rows(x, routing)
        if len(terms) == 1 and terms[0].whole and terms[0].weight is None:
            adapter, base, _, dropout, *_ = terms[0]
            if not (dropout and self.training):
                return adapter.output(x, base)
        if self.reads_output:
            y = self.base(x)
            return self.base.add_bias(self._add_changes(y, x, y, terms))
        if self.folds and not self.base.must_call:
            return self._fold_updates(x, terms)
        return self._add_changes(None, x, None, terms)

    def _add_changes(self, total: Tensor | None, x: Tensor, y: Tensor | None, terms: Sequence[Term]) -> Tensor:
        """Add the changes of these terms to ``total``, or to the layer's output where that is None."""
        for term in terms:
            adapter, base, weight, dropout, structured, *_ = term
            dropout = dropout if self.training else 0.0
            if structured and weight is None and base.part is None:
                total = self._add_update(total, x, term, dropout)
                continue
            before: Tensor = self.layer(x) if total is None else total
            product = y if y is None or base.part is None else y[..., base.part[0] : base.part[1]]
            more = (change(adapter, x, product, base, dropout) * adapter.scale).to(before.dtype)
            if base.part is not None:
                more = F.pad(more, (base.part[0], before.shape[-1] - base.part[1]))
            total = before + (more if weight is None else weight * more)
        return self.layer(x) if total is None else total

    def _add_update(self, total: Tensor | None, x: Tensor, term: Term, dropout: float) -> Tensor:
        """Add an update of all of the layer to ``total``, or to the layer's output where that is None."""
        adapter, base = term.adapter, term.base
        if term.few and not dropout and not torch.is_grad_enabled() and not is_traced() and base.rows(x) <= FEW:
            more = adapter.few(as_autocast(x))
            if more is not None:
                return torch.add(self.layer(x) if total is None else total, more, alpha=adapter.scale)
        update = adapter.update(base)
        if total is None and isinstance(update, LowRank) and base.can_fuse(x):
            return base.fuse_low_rank(update, x, adapter.scale, dropout)
        return base.add_update(self.layer(x) if total is None else total, update, x, adapter.scale, dropout)

    def _fold_updates(self, x: Tensor, terms: Sequence[Term]) -> Tensor:
        """Run the layer with those updates in its weight that are cheaper there; add the changes of the others."""
        rows, grad = self.base.rows(x), torch.is_grad_enabled()
        least = [t.folds.trained if grad else t.folds.plain for t in terms]
        within = [
            t for t, from_ in zip(terms, least, strict=True) if rows >= from_ and not (t.dropout and self.training)
        ]
        if not within:
            return self._add_changes(None, x, None, terms)
        total = self._fold_structured(x, within[0]) if len(within) == 1 else None
        if total is None:
            total = self.base.add_bias(self.base.product(x, self.weight_with(within)))
        return self._add_changes(total, x, None, [t for t in terms if not any(t is other for other in within)])

    def _fold_structured(self, x: Tensor, term: Term) -> Tensor | None:
        """Run the layer with an update in its weight, a sum not kept for the gradient; None where that cannot be."""
        if term.weight is not None or not term.base.can_fuse(x):
            return None
        update, weight = term.adapter.update(term.base), self.base.stored_weight
        if not isinstance(update, Format) or not isinstance(weight, Tensor) or update.dtype != x.dtype:
            return None
        bias, structured = self.base.bias, term.folds.structured
        return folded_product(x, weight, bias, update, term.adapter.scale, structured=structured)

    @torch.no_grad()
    def low_rank_updates(self) -> tuple[LowRank, ...] | None:
        """The updates that the active adapters add to ``layer``'s weight; None where that is not all that they do."""
        alone = self.common.routings.current is None and not self.own and not self.base.must_call
        return low_rank_updates(self.terms if self.original is None else ()) if alone else None

    def weight_with(self, terms: Sequence[Term]) -> Tensor:
        """The weight with these updates, in its own dtype; summed in theirs where that is finer."""
        weight_before = self.base.weight
        total = weight_before
        for adapter, base, weight, *_ in terms:
            update = base.dense(adapter.update(base)) * adapter.scale
            update = update if weight is None else update * weight
            if base.part is not None:
                update = F.pad(update, (0, 0, base.part[0], total.shape[0] - base.part[1]))
            total = total + update
        return total.to(weight_before.dtype)

    def _route_rows(self, x: Tensor, routing: Routing) -> Tensor:
        """Run each row of the batch with its own adapter."""
        if x.shape[0] != routing.batch:
            raise ValueError(
                f"an adapter was named for each of {routing.batch} rows, and a layer got {x.shape[0]}; name one "
                "for every row of the batch"
            )
        product = self.base(x) if self.reads_output else None
        total = self.layer(x) if product is None else product
        for name, index in routing.rows.items():
            terms = self.routes.get(name)
            if terms is not None:
                y = None if product is None else product[index]
                total = total.index_copy(0, index, self._add_changes(total[index], x[index], y, terms))
        return total if product is None else self.base.add_bias(total)

    def updates(self, name: str) -> Iterator[tuple[str, LowRank | Tensor]]:
        for term in self.routes[name]:
            adapter, base = whole_adapter(term.adapter), whole_base(term.base, (self.original or {}).get("weight"))
            update = adapter.update(base)
            update = update if isinstance(update, LowRank) else base.dense(update).flatten(1)
            yield suffix(base.part), update * adapter.scale

    def updated_weights(self) -> dict[str, Tensor]:
        """The parameters with all active updates, without gradients."""
        with torch.no_grad():
            return self.parameters_with(self.terms)

    def parameters_with(self, terms: Sequence[Term]) -> dict[str, Tensor]:
        """The weight, and the bias where it changes, with these updates, in the layer's own dtype and layout."""
        total, bias = self.weight_with(terms), self._bias_with(terms)
        weights = {"weight": total.mT if self.base.transposed else total}
        return weights if bias is None else {**weights, "bias": bias}

    def _bias_with(self, terms: Sequence[Term]) -> Tensor | None:
        """The bias with these updates; None where none changes it."""
        total = before = self.base.bias
        for adapter, base, weight, *_ in terms:
            more = adapter.bias_update(base)
            if more is not None and total is not None:
                more = more * adapter.scale if weight is None else more * adapter.scale * weight
                part = (0, len(total)) if base.part is None else base.part
                total = total + F.pad(more, (part[0], len(total) - part[1]))
        return None if total is before or total is None or before is None else total.to(before.dtype)


__all__ = ["Adapted", "Term"]
