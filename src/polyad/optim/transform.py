"""The interface of a transform: it turns gradients into directions."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

State = dict[str, Any]
"""The state that a transform keeps for one parameter: tensors, formats and plain numbers, by name."""


class Transform(Protocol):
    """Turns a gradient into the direction to descend, with a state of its own for each parameter."""

    def init(self, param: Tensor) -> State:
        """The state before the first step. Its tensors own their storage, so that saving stores no more."""
        ...

    def update(self, grad: Tensor, state: State, param: Tensor) -> Tensor:
        """The direction, of param's shape; the host subtracts it times the learning rate. Changes ``state``."""
        ...
