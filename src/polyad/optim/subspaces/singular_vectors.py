"""The leading singular vectors of a gradient."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from polyad._card import Paper, method
from polyad.linalg import truncated_svd
from polyad.optim.subspace import carry_moments
from polyad.optim.transform import State


@method(
    "subspace",
    name="singular_vectors",
    example={"rank": 2, "follows": 1},
    papers=(
        Paper(
            "Zhao, Zhang, Chen, Wang, Anandkumar, Tian", 2024,
            "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection", "arXiv:2403.03507",
            adds="the leading singular vectors of the gradient of the moment, along the shorter side",
        ),
    ),
)  # fmt: skip
@dataclass(frozen=True)
class SingularVectors:
    """The ``rank`` leading left singular vectors of the gradient, an orthonormal basis (n, rank).

    Nothing of its rank holds more of the gradient. A refresh costs a truncated SVD, O(n² m).

    >>> import torch
    >>> g = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    >>> SingularVectors(rank=1).refresh(g).abs()
    tensor([[1.],
            [0.]])
    """

    rank: int

    def refresh(self, g: Tensor, basis: Tensor | None = None, mean: Tensor | None = None) -> Tensor:  # noqa: ARG002
        return truncated_svd(g, self.rank)[0].contiguous()

    def down(self, g: Tensor, basis: Tensor) -> Tensor:
        return basis.to(g.dtype).mT @ g

    def up(self, y: Tensor, basis: Tensor) -> Tensor:
        return basis.to(y.dtype) @ y

    def transport(self, state: State, old: Tensor, new: Tensor) -> State:
        return carry_moments(state, new.mT @ old)
