"""A basis that follows the gradients' leading singular vectors by single power iterations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyad._card import Paper, method
from polyad.linalg import truncated_svd
from polyad.optim.subspace import carry_moments
from polyad.optim.transform import State


@method(
    "subspace",
    name="power_iteration",
    example={"rank": 2, "follows": 1},
    papers=(
        Paper(
            "Robert, Safaryan, Modoranu, Alistarh", 2024,
            "LDAdam: Adaptive Optimization from Low-Dimensional Gradient Statistics", "arXiv:2410.16103",
            adds="the warm-started power iteration, and moments carried over to the new basis",
        ),
    ),
)  # fmt: skip
@dataclass(frozen=True)
class PowerIteration:
    """An orthonormal basis P (n, rank): the gradient's leading left singular vectors at first, then ``qr(G Gᵀ P)``.

    A refresh after the first costs two products of 2 n m rank operations and a QR of n x rank, and keeps what earlier
    gradients had in common. A gradient of zeros leaves the basis as it is.

    >>> import torch
    >>> g = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    >>> PowerIteration(rank=1).refresh(g, torch.tensor([[0.6], [0.8]])).abs()
    tensor([[1.],
            [0.]])
    """

    rank: int

    def refresh(self, g: Tensor, basis: Tensor | None = None, mean: Tensor | None = None) -> Tensor:  # noqa: ARG002
        if basis is None:
            return truncated_svd(g, self.rank)[0].contiguous()
        largest = g.abs().max()
        scaled = g / torch.where(largest > 0, largest, 1)
        image = scaled @ (scaled.mT @ basis.to(g.dtype))
        largest = image.abs().max()
        if not largest > 0:  # no gradient says nothing about the subspace
            return basis
        return torch.linalg.qr((image / largest).to(basis.dtype)).Q.contiguous()

    def down(self, g: Tensor, basis: Tensor) -> Tensor:
        return basis.to(g.dtype).mT @ g

    def up(self, y: Tensor, basis: Tensor) -> Tensor:
        return basis.to(y.dtype) @ y

    def transport(self, state: State, old: Tensor, new: Tensor) -> State:
        return carry_moments(state, new.mT @ old)
