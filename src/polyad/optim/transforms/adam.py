"""Adam: the mean of the gradient over the root of the mean of its square."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyad._card import Paper, method
from polyad.optim.moments import check_betas, zeros
from polyad.optim.transform import State

FUSED = (torch.float32, torch.float64)
"""Dtypes of parameters whose whole step torch's fused kernel takes, with moments of the same."""


@method(
    "transform",
    name="adam",
    example={"scale": 0},
    papers=(
        Paper("Kingma, Ba", 2014, "Adam: A Method for Stochastic Optimization", "arXiv:1412.6980"),
        Paper(
            "Loshchilov, Hutter", 2017, "Decoupled Weight Decay Regularization", "arXiv:1711.05101",
            adds="the decay of the weights apart from the gradient, which is the host's",
        ),
    ),
)  # fmt: skip
@dataclass(frozen=True)
class Adam:
    """``m̂ / (√v̂ + eps)`` of the gradient's means ``m`` and of its square's ``v``, without the bias of their start.

    The state is float32 (float64 for float64 parameters): 8 bytes a number. The step is torch's fused kernel.

    >>> weight = torch.zeros(2)
    >>> transform = Adam()
    >>> transform.update(torch.tensor([3.0, -0.1]), transform.init(weight), weight)
    tensor([ 1.0000, -1.0000])
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check_betas(self.betas)

    def init(self, param: Tensor) -> State:
        return {"step": 0, "mean": zeros(param), "square": zeros(param)}

    def update(self, grad: Tensor, state: State, param: Tensor) -> Tensor:  # noqa: ARG002
        direction = torch.zeros_like(state["mean"])
        self._add(direction, grad, state, -1.0, 0.0)
        return direction

    def descend(self, param: Tensor, grad: Tensor, state: State, lr: float, decay: float) -> None:
        if param.dtype in FUSED:
            self._add(param, grad, state, lr, decay)
            return
        direction = self.update(grad, state, param)
        param.mul_(1 - lr * decay)
        param.add_(direction.to(param.dtype), alpha=-lr)

    def _add(self, target: Tensor, grad: Tensor, state: State, lr: float, decay: float) -> None:
        """Take a step of a tensor in the moments' dtype, and put the gradient into these."""
        state["step"] += 1
        step = torch.tensor(float(state["step"]), device=target.device)
        first, second = self.betas
        torch._fused_adamw_(  # pyright: ignore[reportPrivateImportUsage]
            [target], [grad.to(target.dtype)], [state["mean"]], [state["square"]], [], [step],
            lr=lr, beta1=first, beta2=second, weight_decay=decay, eps=self.eps, amsgrad=False, maximize=False,
        )  # fmt: skip
