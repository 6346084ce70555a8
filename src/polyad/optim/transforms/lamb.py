"""LAMB: Adam's step of each tensor, as long as a share of the tensor itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyad._card import Paper, method
from polyad.optim.moments import check_betas
from polyad.optim.transform import State
from polyad.optim.transforms.adam import Adam


@method(
    "transform",
    name="lamb",
    example={"lr": 0.02},
    papers=(
        Paper(
            "You, Li, Reddi, Hseu, Kumar, Bhojanapalli, Song, Demmel, Keutzer, Hsieh",
            2019,
            "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes",
            "arXiv:1904.00962",
            handle="lamb",
            adds="the trust ratio of each tensor",
        ),
    ),
)
@dataclass(frozen=True)
class LAMB:
    """``|p| / |u| * u`` for ``u = m̂ / (√v̂ + eps) + weight_decay * p``; the ratio is 1 where either norm is 0.

    The decay counts in the ratio, so that it is given here and not to the optimizer. Vectors (biases and norms)
    have no decay and no ratio, as the authors leave them out. Nothing is clipped; other libraries clip the gradient
    first. State as Adam's.

    >>> weight = torch.full((2, 2), 3.0)
    >>> transform = LAMB()
    >>> transform.update(torch.ones(2, 2), transform.init(weight), weight)
    tensor([[3., 3.],
            [3., 3.]])
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_betas(self.betas)
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay={self.weight_decay} is negative; give 0 or a positive number")

    def init(self, param: Tensor) -> State:
        return Adam(self.betas, self.eps).init(param)

    def update(self, grad: Tensor, state: State, param: Tensor) -> Tensor:
        direction = Adam(self.betas, self.eps).update(grad, state, param)
        if param.ndim < 2:
            return direction
        direction.add_(param, alpha=self.weight_decay)
        length, step = torch.linalg.vector_norm(param.to(direction.dtype)), torch.linalg.vector_norm(direction)
        return direction.mul_(torch.where((length > 0) & (step > 0), length / step, 1))
