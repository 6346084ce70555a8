"""Calls of a layer itself, whatever it takes and gives, with its adapters' updates in its weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from polyad.adapters.frozen.frozen import Frozen
from polyad.adapters.frozen.layer_function import call_with_weights
from polyad.adapters.host.routing import Routing


class Changeable(Protocol):
    """A layer whose parameters, with some terms in them, can be had."""

    base: Frozen
    routes: dict[str, tuple[Any, ...]]

    @property
    def layer(self) -> nn.Module: ...

    def parameters_with(self, terms: Sequence[Any]) -> dict[str, Tensor]: ...


def call_changed(adapted: Changeable, terms: Sequence[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The layer's output with the updates of these terms in its parameters."""
    if not terms:
        return adapted.layer(*args, **kwargs)
    if not adapted.base.mergeable:
        raise ValueError(
            f"a {type(adapted.layer).__name__} got {len(args) + len(kwargs)} arguments, and its weight takes no "
            "update, so that adapters act on one input alone; detach the adapters from it"
        )
    return call_with_weights(adapted.layer, adapted.parameters_with(terms), *args, **kwargs)


def call_by_rows(
    adapted: Changeable, routing: Routing, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Tensor:  # fmt: skip
    """The layer's output for each adapter, of which the rows are taken that are that adapter's."""
    total = adapted.layer(*args, **kwargs)
    if not isinstance(total, Tensor) or len(total) != routing.batch:
        raise ValueError(
            f"a {type(adapted.layer).__name__} gives no row for each of the {routing.batch} of the batch, and "
            "takes no adapters by row; detach the adapters from it, or leave routed()"
        )
    for name, index in routing.rows.items():
        if name in adapted.routes:
            output = call_changed(adapted, adapted.routes[name], args, kwargs)
            total = total.index_copy(0, index, output[index])
    return total
