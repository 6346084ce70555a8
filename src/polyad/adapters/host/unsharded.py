"""Adapters and frozen weights as they are to be read: whole where processes hold shards, and as before a merge."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from polyad.adapters.adapter import Adapter, Shared
from polyad.adapters.frozen.frozen import Frozen
from polyad.adapters.frozen.layer_kinds import frozen_view
from polyad.adapters.sharded import is_sharded, whole


def whole_adapter(adapter: Adapter) -> Adapter:
    """The adapter; where its tensors are sharded, a copy with all of each. Every process must come here."""
    shared = [value.bank for value in vars(adapter).values() if isinstance(value, Shared)]
    tensors = [t for module in (adapter, *shared) for t in (*module.parameters(), *module.buffers())]
    if not is_sharded(tensors):
        return adapter
    gathered: dict[int, Any] = {id(t): _like(t, whole(t.detach())) for t in tensors}
    return copy.deepcopy(adapter, gathered)


def whole_base(base: Frozen, original: Tensor | None) -> Frozen:
    """The view of a frozen weight with all of its numbers, and with ``original`` where another was merged into it."""
    parameters = base.layer._parameters
    if original is None and not is_sharded(p for p in parameters.values() if p is not None):
        return base
    layer = copy.copy(base.layer)
    gathered = {name: None if p is None else _like(p, whole(p.detach())) for name, p in parameters.items()}
    if original is not None:
        gathered["weight"] = nn.Parameter(whole(original), requires_grad=False)
    layer.__dict__["_parameters"] = gathered
    view = frozen_view(layer, base.part)
    assert view is not None
    return view


def _like(tensor: Tensor, numbers: Tensor) -> Tensor:
    """These numbers as a parameter or a buffer, as ``tensor`` is."""
    return nn.Parameter(numbers, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else numbers
