"""Adam whose moments live in a low-dimensional subspace of each matrix's gradients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from polyad._card import Paper, method
from polyad.optim.moments import check_betas
from polyad.optim.projected import Projected
from polyad.optim.subspaces.power_iteration import PowerIteration
from polyad.optim.transform import State
from polyad.optim.transforms.adam import Adam


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

    >>> import torch
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
        check_betas(self.betas)

    @cached_property
    def _projected(self) -> Projected:
        return Projected(Adam(self.betas, self.eps), PowerIteration(self.rank), self.interval, self.scale)

    def init(self, param: Tensor) -> State:
        return self._projected.init(param)

    def update(self, grad: Tensor, state: State, param: Tensor) -> Tensor:
        return self._projected.update(grad, state, param)

    def descend(self, param: Tensor, grad: Tensor, state: State, lr: float, decay: float) -> None:
        self._projected.descend(param, grad, state, lr, decay)
