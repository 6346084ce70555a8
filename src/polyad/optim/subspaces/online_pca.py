"""A basis that takes a step of online principal component analysis with every gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyad._card import Paper, method
from polyad.linalg import truncated_svd
from polyad.optim.subspace import carry_moments
from polyad.optim.transform import State

OSD = Paper(
    "Liang, Liu, Chen, Liu",
    2024,
    "Memory-Efficient LLM Training with Online Subspace Descent",
    "arXiv:2408.12857",
    handle="online-subspace-descent",
    adds="a step of Adam on the basis at every gradient, in the place of singular vectors every so often",
)


@method("subspace", name="online_pca", example={"rank": 2, "follows": 1}, papers=(OSD,))
@dataclass(frozen=True)
class OnlinePCA:
    """A basis P (n, rank) that descends ``|G - P Pᵀ G|² + penalty |Pᵀ P - I|²`` by Adam, a step a refresh, for G of
    norm one.

    It begins as the gradient's leading singular vectors and stays nearly orthonormal by its penalty; the released
    code has none. ``rate`` is Adam's: 5e-3 is what the released code takes at its gap of 200. Kept are P and its
    two moments; a refresh costs three products of 2 n m rank operations.

    >>> g = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    >>> OnlinePCA(rank=1).refresh(g)["basis"].abs()
    tensor([[1.],
            [0.]])
    """

    rank: int
    rate: float = 5e-3
    penalty: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)

    def refresh(self, g: Tensor, basis: Any = None, mean: Tensor | None = None) -> Any:  # noqa: ARG002
        wide = g.to(torch.promote_types(g.dtype, torch.float32))
        if basis is None:
            P = truncated_svd(wide, self.rank)[0].contiguous()
            return {"basis": P, "mean": torch.zeros_like(P), "square": torch.zeros_like(P), "step": 0}
        largest = wide.abs().max()
        scaled = wide / torch.where(largest > 0, largest, 1)
        norm = scaled.norm()
        slope = self._slope(scaled / torch.where(norm > 0, norm, 1), basis["basis"])
        step, (first, second) = basis["step"] + 1, self.betas
        mean_of_slopes = basis["mean"].lerp(slope, 1 - first)
        square = basis["square"] * second + (1 - second) * slope.square()
        root = (square / (1 - second**step)).sqrt() + 1e-8
        P = basis["basis"] - self.rate * mean_of_slopes / (1 - first**step) / root
        return {"basis": P, "mean": mean_of_slopes, "square": square, "step": step}

    def _slope(self, g: Tensor, P: Tensor) -> Tensor:
        """The gradient of the objective at P for a gradient of norm one."""
        y, gram = P.mT @ g, P.mT @ P  # (rank, m), (rank, rank)
        gy, yy = g @ y.mT, y @ y.mT  # (n, rank), (rank, rank)
        outside = gram - torch.eye(self.rank, dtype=P.dtype, device=P.device)
        return -4 * gy + 2 * (P @ yy + gy @ gram) + 4 * self.penalty * P @ outside

    def down(self, g: Tensor, basis: Any) -> Tensor:
        return basis["basis"].to(g.dtype).mT @ g

    def up(self, y: Tensor, basis: Any) -> Tensor:
        return basis["basis"].to(y.dtype) @ y

    def transport(self, state: State, old: Any, new: Any) -> State:
        return carry_moments(state, new["basis"].mT @ old["basis"])
