"""A tensor as it is, so that sums and products can hold one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from polyad.formats.format import Format


def dense_product(weight: Tensor, x: Tensor) -> Tensor:
    """``x @ weight.mT`` in x's dtype."""
    weight = weight.to(x.dtype)
    return F.linear(x, weight) if weight.ndim == 2 else x @ weight.mT


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Format):
    """A tensor of any shape (*batch, …) that is stored as it is."""

    weight: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.weight.shape)

    def to_dense(self) -> Tensor:
        return self.weight

    def linear(self, x: Tensor) -> Tensor:
        return dense_product(self.weight, x)

    def transpose(self) -> Dense:
        return Dense(self.weight.mT)

    def rows(self, index: Tensor) -> Tensor:
        return self.weight[index]

    def combine(self, weights: Tensor) -> Tensor:
        return weights @ self.weight.to(weights.dtype)

    def growth(self) -> dict[str, int]:
        return {"weight": 1}

    def convolve(self, x: Tensor, kernel: tuple[int, ...], **geometry: Any) -> Tensor:
        return convolve(x, self.weight, kernel, **geometry)

    def flops(self, batch: int) -> int:
        return 2 * batch * math.prod(self.shape)

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        return cls(torch.randn(shape, generator=generator, dtype=dtype))


def convolve(x: Tensor, weight: Tensor, kernel: tuple[int, ...], **geometry: Any) -> Tensor:
    """torch's convolution with a kernel given as a matrix of shape (out, in / groups * prod(kernel))."""
    run = (F.conv1d, F.conv2d, F.conv3d)[len(kernel) - 1]
    weight = weight.to(x.dtype).reshape(weight.shape[0], -1, *kernel)
    return run(x, weight, **geometry)
