"""Both moments of any parameter as rank-one matrices that are nearly square, with signs of one bit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad._card import Paper, method
from polyad.formats.stored.packing import pack, unpack
from polyad.optim.moments import moment_dtype
from polyad.optim.transform import State


@method(
    "transform",
    name="smmf",
    example={"scale": 0, "lr": 0.1},
    papers=(
        Paper(
            "Park, Lee",
            2024,
            "SMMF: Square-Matricized Momentum Factorization for Memory-Efficient Optimization",
            "arXiv:2412.08894",
            handle="smmf",
            adds="square shapes, one compression a step behind the update, and decays that change with the step",
        ),
    ),
)
@dataclass(frozen=True)
class SMMF:
    """``m / (√v + eps)`` with ``m`` and ``v`` restored each step from row and column sums, and m's signs.

    At step t, from 1, ``m ← β_m m + (1 - β_m) g`` for ``β_m = beta * growth^(t - 1)`` and ``v ← β_v v + (1 - β_v)
    g²`` for ``β_v = 1 - t^decay`` (-0.8 for transformers, -0.5 for convolutional nets), both of full size; then
    both are stored as the product of their row and column sums over their total. N numbers have the shape (N / i,
    i) for the largest divisor i up to √N, or are filled up with zeros where N has none that is near. State: four
    vectors of about √N numbers and N / 8 bytes; the moments of one parameter at a time are held at full size. A
    stored m can be large where v is small: the authors clip nothing.

    >>> weight = torch.zeros(2)
    >>> transform = SMMF()
    >>> transform.update(torch.tensor([3.0, -0.1]), transform.init(weight), weight)
    tensor([ 0.1000, -0.1000])
    """

    beta: float = 0.9
    growth: float = 0.999
    decay: float = -0.8
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if not 0 <= self.beta < 1 or not 0 < self.growth <= 1 or not -1 <= self.decay < 0:
            raise ValueError(
                f"beta={self.beta}, growth={self.growth} and decay={self.decay} must be in [0, 1), (0, 1] and [-1, 0)"
            )

    def init(self, param: Tensor) -> State:
        rows, columns = square_shape(param.numel())
        like = {"dtype": moment_dtype(param), "device": param.device}
        state: State = {
            "step": 0,
            "signs": pack(torch.zeros(rows, columns, dtype=torch.uint8, device=param.device), 1),
        }
        for name in ("mean", "square"):
            state |= {f"{name}_rows": torch.zeros(rows, **like), f"{name}_columns": torch.zeros(columns, **like)}
        return state

    def update(self, grad: Tensor, state: State, param: Tensor) -> Tensor:
        state["step"] += 1
        rows, columns = len(state["mean_rows"]), len(state["mean_columns"])
        flat = grad.reshape(-1).to(state["mean_rows"].dtype)
        g = F.pad(flat, (0, rows * columns - len(flat))).view(rows, columns)
        first, second = self.beta * self.growth ** (state["step"] - 1), 1 - state["step"] ** self.decay
        signs = unpack(state["signs"], 1, columns).to(g.dtype).mul_(2).sub_(1)
        mean = signs.mul_(state["mean_rows"][:, None]).mul_(state["mean_columns"])
        mean.mul_(first).add_(g, alpha=1 - first)
        square = torch.outer(state["square_rows"], state["square_columns"])
        square.mul_(second).addcmul_(g, g, value=1 - second)
        state["signs"] = pack((mean > 0).to(torch.uint8), 1)
        state["square_rows"], state["square_columns"] = rank_one(square)
        direction = mean / square.sqrt_().add_(self.eps)
        state["mean_rows"], state["mean_columns"] = rank_one(mean.abs_())
        return direction.view(-1)[: grad.numel()].view(param.shape)


def square_shape(count: int) -> tuple[int, int]:
    """The nearly square shape (rows, columns), rows ≥ columns, of so many numbers, filled up where no divisor is
    near.

    >>> square_shape(384 * 1024), square_shape(7)
    ((768, 512), (4, 2))
    """
    root = max(math.isqrt(count), 1)
    divisor = next((i for i in range(root, max(root // 4, 1), -1) if count % i == 0), root)
    return -(-count // divisor), divisor


def rank_one(x: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column sums of a matrix without negative numbers whose outer product has its total."""
    rows, columns = x.sum(1), x.sum(0)
    total = columns.sum()
    return rows, columns / torch.where(total > 0, total, 1)
