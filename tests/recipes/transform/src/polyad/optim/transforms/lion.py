"""The sign of an interpolation between the gradient and its running mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyad._card import Paper, method
from polyad.optim.transform import State

LION = Paper(
    "Chen, Liang, Huang, Real, Wang, Liu, Pham, Dong, Luong, Hsieh, Lu, Le", 2023,
    "Symbolic Discovery of Optimization Algorithms", "arXiv:2302.06675",
    handle="lion", adds="signs of the mean, with one decay for the step and another for the mean that is kept",
)  # fmt: skip


@method("transform", name="lion", example={"scale": 0}, papers=(LION,))
@dataclass(frozen=True)
class Lion:
    """``sign(β₁ m + (1 - β₁) g)``, after which ``m ← β₂ m + (1 - β₂) g``.

    The state is the mean alone, in float32 (float64 for float64 parameters): half of Adam's. Decay of the weights is
    the host's.

    >>> weight = torch.zeros(2)
    >>> transform = Lion()
    >>> transform.update(torch.tensor([3.0, -0.1]), transform.init(weight), weight)
    tensor([ 1., -1.])
    """

    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas} must both be from 0 up to, but not, 1")

    def init(self, param: Tensor) -> State:
        return {"mean": torch.zeros_like(param, dtype=torch.promote_types(param.dtype, torch.float32))}

    def update(self, grad: Tensor, state: State, param: Tensor) -> Tensor:  # noqa: ARG002
        mean, (first, second) = state["mean"], self.betas
        grad = grad.to(mean.dtype)
        direction = mean.lerp(grad, 1 - first).sign()
        mean.lerp_(grad, 1 - second)
        return direction
