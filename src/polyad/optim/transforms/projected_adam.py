"""Adam whose moments live in a low-dimensional subspace of each matrix's gradients."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.linalg import truncated_svd
from polyad.optim.transform import State


@method(
    "transform",
    name="projected_adam",
    example={"rank": 2, "interval": 5, "lr": 0.5, "scale": 0},
    papers=(
        Paper(
            "Zhao, Zhang, Chen, Wang, Anandkumar, Tian",
            2024,
            "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection",
            "arXiv:2403.03507",
            adds="moments of the projected gradient, and an update of the projected step times a scale",
        ),
        Paper(
            "Robert, Safaryan, Modoranu, Alistarh",
            2024,
            "LDAdam: Adaptive Optimization from Low-Dimensional Gradient Statistics",
            "arXiv:2410.16103",
            adds="the warm-started power iteration, and moments carried over to the new basis",
        ),
    ),
)
@dataclass(frozen=True)
class ProjectedAdam:
    """Adam on the ``rank`` leading coordinates of a matrix's gradient, along the matrix's shorter side.

    For a gradient G of shape (n, m), n ≤ m, and an orthonormal basis P of shape (n, rank), the moments are those
    of ``Pᵀ G`` and the direction is ``scale * P · (m̂ / (√v̂ + eps))``. P starts as G's leading left singular
    vectors and is refreshed every ``interval`` steps by one power iteration from where it is, ``qr(G Gᵀ P)``;
    the moments then follow: ``m ← C m`` and ``v ← C² (v - m²)₊ + (C m)²`` for ``C = P_newᵀ P_old``, squares taken
    entry by entry. Tensors of more dimensions count as matrices of their first dimension by the rest. Vectors, and
    matrices whose shorter side is at most ``rank``, have plain Adam, without the scale.

    The state is float32 (float64 for float64 parameters): 4 (n rank + 2 rank m) bytes a matrix. A step adds
    4 n m rank operations to Adam's, a refresh as many again.

    >>> transform = ProjectedAdam(rank=1)
    >>> weight = torch.zeros(2, 3)
    >>> state = transform.init(weight)
    >>> transform.update(torch.tensor([[4.0, 4.0, 4.0], [0.0, 0.0, 0.0]]), state, weight)[0]
    tensor([0.2500, 0.2500, 0.2500])
    """

    rank: int
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    interval: int = 200
    scale: float = 0.25

    def __post_init__(self) -> None:
        if self.rank < 1 or self.interval < 1:
            raise ValueError(f"rank={self.rank} and interval={self.interval} must both be at least 1")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas} must both be from 0 up to, but not, 1")

    def init(self, param: Tensor) -> State:
        dtype = torch.promote_types(param.dtype, torch.float32)
        state: State = {"step": 0}
        shape = tuple(param.shape)
        if self._projects(param):
            n, m = sorted((shape[0], param.numel() // shape[0]))
            shape = (self.rank, m)
            state["basis"] = torch.zeros((n, self.rank), dtype=dtype, device=param.device)
        for name in ("mean", "square"):
            state[name] = torch.zeros(shape, dtype=dtype, device=param.device)
        return state

    def update(self, grad: Tensor, state: State, param: Tensor) -> Tensor:
        grad = grad.to(state["mean"].dtype)
        if not self._projects(param):
            return self._step(grad, state)
        matrix = grad.flatten(1)
        tall = matrix.shape[0] > matrix.shape[1]
        matrix = matrix.mT if tall else matrix
        if state["step"] % self.interval == 0:
            self._refresh(matrix, state)
        direction = self.scale * (state["basis"] @ self._step(state["basis"].mT @ matrix, state))
        return (direction.mT if tall else direction).reshape(param.shape)

    def _projects(self, param: Tensor) -> bool:
        return param.ndim > 1 and self.rank < min(param.shape[0], param.numel() // param.shape[0])

    def _refresh(self, grad: Tensor, state: State) -> None:
        """Turn the basis towards this gradient and carry the moments over."""
        old = state["basis"]
        if state["step"] == 0:
            state["basis"] = truncated_svd(_check.finite("grad", grad), self.rank)[0]
            return
        image = grad @ (grad.mT @ old)
        largest = image.abs().max()
        if not largest > 0:  # no gradient says nothing about the subspace
            return
        state["basis"] = new = torch.linalg.qr(image / largest).Q.contiguous()
        turn = new.mT @ old
        spread = (state["square"] - state["mean"].square()).clamp(min=0)
        state["mean"] = turn @ state["mean"]
        state["square"] = turn.square() @ spread + state["mean"].square()

    def _step(self, grad: Tensor, state: State) -> Tensor:
        """Adam's direction for this gradient in these coordinates."""
        state["step"] += 1
        first, second = self.betas
        state["mean"].lerp_(grad, 1 - first)
        state["square"].mul_(second).addcmul_(grad, grad, value=1 - second)
        mean = state["mean"] / (1 - first ** state["step"])
        square = state["square"] / (1 - second ** state["step"])
        return mean / (square.sqrt() + self.eps)
