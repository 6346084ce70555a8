"""The interface of a transform: it turns gradients into directions."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

State = dict[str, Any]
"""The state that a transform keeps for one parameter: tensors, formats, plain numbers, None, and dictionaries of
these, by name. ``phase``, where a transform has it, is set by the host to the parameter's place among all, so that
work that comes every so many steps does not come for all at once."""


class Transform(Protocol):
    """Turns a gradient into the direction to descend, with a state of its own for each parameter.

    A transform may also have ``descend(param, grad, state, lr, decay)``, which does all of the host's step, ``param
    ← (1 - lr * decay) * param - lr * direction``, with fewer passes over the numbers. Its first steps, and all
    later ones, are those that ``update`` would give, to rounding.
    """

    def init(self, param: Tensor) -> State:
        """The state before the first step. Its tensors own their storage, so that saving stores no more."""
        ...

    def update(self, grad: Tensor, state: State, param: Tensor) -> Tensor:
        """The direction, of param's shape; the host subtracts it times the learning rate. Changes ``state``."""
        ...


def take_step(transform: Transform, param: Tensor, grad: Tensor, state: State, lr: float, decay: float) -> None:
    """``param ← (1 - lr * decay) * param - lr * direction``, by the transform's own ``descend`` where it has one."""
    own = getattr(transform, "descend", None)
    if own is not None:
        own(param, grad, state, lr, decay)
        return
    direction = transform.update(grad, state, param)
    param.mul_(1 - lr * decay)
    param.add_(direction.to(param.dtype), alpha=-lr)
