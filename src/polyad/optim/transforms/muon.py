"""Muon: the momentum of a matrix with its singular values set to about one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyad._card import Paper, method
from polyad.optim.moments import check_betas, matrix_sides, shaped_as, wide_matrix, zeros
from polyad.optim.transform import State
from polyad.optim.transforms.adam import Adam

QUINTIC = (3.4445, -4.775, 2.0315)
"""Coefficients of the odd polynomial of degree five that lifts all singular values towards one."""


@method(
    "transform",
    name="muon",
    example={"scale": 0},
    papers=(
        Paper(
            "Liu, Su, Yao, Jiang, Lai, Du, Qin, Xu, Lu, Yan, Chen, Zheng, Liu, Liu, Yin, He, Zhu, Wang, Wang, Dong",
            2025,
            "Muon is Scalable for LLM Training",
            "arXiv:2502.16982",
            adds="the length of a step that lets matrices and vectors share Adam's learning rates",
        ),
    ),
)
@dataclass(frozen=True)
class Muon:
    """``0.2 √max(n, m) * U Vᵀ`` of the Nesterov momentum of a matrix gradient (n, m), ``U V'`` by five iterations.

    The quintic iteration leaves singular values between about 0.7 and 1.2, and those that were tiny below. Vectors
    have Adam. Tensors of more dimensions count as matrices of their first dimension by the rest; embeddings and
    heads are matrices here too, and are better given Adam by a group of their own. State: one moment in float32, 4
    bytes a number. A step costs ``steps`` times 4 n² m + 2 n³ operations, n ≤ m.

    >>> weight = torch.zeros(2, 3)
    >>> transform = Muon()
    >>> grad = torch.tensor([[4.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    >>> direction = transform.update(grad, transform.init(weight), weight)
    >>> (direction / (0.2 * 3**0.5)).diagonal().round(decimals=1)
    tensor([0.7000, 1.1000])
    """

    momentum: float = 0.95
    steps: int = 5
    betas: tuple[float, float] = (0.9, 0.95)

    def __post_init__(self) -> None:
        check_betas((self.momentum,), "momentum")
        check_betas(self.betas)
        if self.steps < 1:
            raise ValueError(f"steps={self.steps} is below 1; five are usual")

    def init(self, param: Tensor) -> State:
        return Adam(self.betas).init(param) if param.ndim < 2 else {"step": 0, "mean": zeros(param)}

    def update(self, grad: Tensor, state: State, param: Tensor) -> Tensor:
        if param.ndim < 2:
            return Adam(self.betas).update(grad, state, param)
        state["step"] += 1
        grad = grad.to(state["mean"].dtype)
        state["mean"].lerp_(grad, 1 - self.momentum)
        ahead = state["mean"].lerp(grad, 1 - self.momentum)
        scale = 0.2 * matrix_sides(param)[1] ** 0.5
        return shaped_as(scale * orthogonalized(wide_matrix(ahead), self.steps), param)


def orthogonalized(g: Tensor, steps: int = 5) -> Tensor:
    """A matrix (n, m), n ≤ m, with its singular values near one; zeros where it is zero.

    >>> orthogonalized(torch.zeros(2, 3)).any()
    tensor(False)
    """
    largest = g.abs().max()
    x = g / torch.where(largest > 0, largest, 1)
    norm = torch.linalg.matrix_norm(x)
    x = x / torch.where(norm > 0, norm, 1)
    a, b, c = QUINTIC
    for _ in range(steps):
        gram = x @ x.mT  # (n, n)
        x = torch.addmm(a * x, torch.addmm(b * gram, gram, gram, alpha=c), x)
    return x
