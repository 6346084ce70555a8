"""A rule in fewer coordinates: its moments are those of the gradient's projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyad import _check
from polyad.optim.moments import matrix_sides, moment_dtype, shaped_as, wide_matrix
from polyad.optim.subspace import Subspace
from polyad.optim.transform import State, Transform, take_step

MOMENTS = ("mean", "square")


@dataclass(frozen=True)
class Projected:
    """``scale * up(rule(down(G)))`` for a matrix gradient G: any rule, in any subspace.

    The basis is chosen anew every ``interval`` steps, for different parameters on different steps, and with
    ``carry`` the rule's moments follow it; without, they stay as they are. Tensors of more dimensions count as
    matrices of their first dimension by the rest. What is no matrix, or one whose shorter side is at most the rank,
    has the rule itself, without the scale. Beside the rule's own work a step takes 4 n m rank operations.

    >>> from polyad.optim import Adam, SingularVectors
    >>> transform = Projected(Adam(), SingularVectors(rank=1), scale=0.5)
    >>> weight = torch.zeros(2, 3)
    >>> transform.update(torch.tensor([[4.0, 4.0, 4.0], [0.0, 0.0, 0.0]]), transform.init(weight), weight)[0]
    tensor([0.5000, 0.5000, 0.5000])
    """

    rule: Transform
    subspace: Subspace
    interval: int = 200
    scale: float = 1.0
    carry: bool = True

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"interval={self.interval} is below 1; give the steps between two choices of a basis")

    def projects(self, param: Tensor) -> bool:
        """True for a parameter that is worked on in the subspace."""
        return param.ndim > 1 and self.subspace.rank < matrix_sides(param)[0]

    def init(self, param: Tensor) -> State:
        if not self.projects(param):
            return self.rule.init(param)
        low = param.detach().new_empty((self.subspace.rank, matrix_sides(param)[1]), dtype=moment_dtype(param))
        return {**self.rule.init(low), "basis": None, "phase": 0}

    def update(self, grad: Tensor, state: State, param: Tensor) -> Tensor:
        if not self.projects(param):
            return self.rule.update(grad, state, param)
        y = self._step(grad, state, param)
        if y is None:
            return torch.zeros_like(param)
        return shaped_as(self.scale * self.subspace.up(y, state["basis"]), param)

    def descend(self, param: Tensor, grad: Tensor, state: State, lr: float, decay: float) -> None:
        if not self.projects(param):
            take_step(self.rule, param, grad, state, lr, decay)
            return
        y = self._step(grad, state, param)
        if y is None:
            param.mul_(1 - lr * decay)
            return
        basis, target = state["basis"], wide_matrix(param)
        if isinstance(basis, Tensor) and basis.dtype == param.dtype and basis.ndim == 2 and param.ndim == 2:
            target.addmm_(basis, y, beta=1 - lr * decay, alpha=-lr * self.scale)  # in one pass over the weight
            return
        param.mul_(1 - lr * decay)
        param.sub_(shaped_as(self.subspace.up(y, basis), param).to(param.dtype), alpha=lr * self.scale)

    def _step(self, grad: Tensor, state: State, param: Tensor) -> Tensor | None:
        """The rule's direction (rank, m) in the subspace, chosen anew where it is time; None before any gradient."""
        g = wide_matrix(grad).to(moment_dtype(param))
        if state["basis"] is None and not bool(g.any()):
            return None
        if state["basis"] is None or (state["step"] + state.get("phase", 0)) % self.interval == 0:
            self._refresh(g, state)
        return self.rule.update(self.subspace.down(g, state["basis"]), state, param)

    def _refresh(self, g: Tensor, state: State) -> None:
        old: Any = state["basis"]
        if old is None:
            _check.finite("grad", g)
        new = self.subspace.refresh(g, old, None if old is None else state.get("mean"))
        if old is not None and self.carry:
            held = {name: state[name] for name in MOMENTS if isinstance(state.get(name), Tensor)}
            state |= self.subspace.transport(held, old, new) if held else {}
        state["basis"] = new
