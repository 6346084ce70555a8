"""A basis that follows the gradient and keeps in line with the moment that was gathered in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from polyad._card import Paper, method
from polyad.linalg import truncated_svd
from polyad.optim.subspace import carry_moments
from polyad.optim.transform import State

COAP = Paper(
    "Xiao, Sang, Zhi, Liu, Yan, Zhang, Luo, Yuan",
    2024,
    "COAP: Memory-Efficient Training with Correlation-Aware Gradient Projection",
    "arXiv:2412.00071",
    handle="coap",
    adds="steps on the projection that weigh reconstruction by its correlation with the moment, and a cheap SVD",
)


@method("subspace", name="correlation_aware", example={"rank": 2, "follows": 1}, papers=(COAP,))
@dataclass(frozen=True)
class CorrelationAware:
    """A basis P (n, rank): one small SVD of ``Qᵀ G`` for Q of ``qr(G Pᵀ…)`` at every ``recalibrate``-th refresh,
    and a gradient step on ``|G - P Pᵀ G|² / |G|² · (1 - mean cos(P M, G))`` at the others.

    M is the first moment in the basis, the cosine one of the columns of length n. The paper's mean squared error
    makes steps of the released size vanish (1e-6 of P and less); here the error is relative to the gradient, as a
    restatement of the paper suggests it is meant. P is not made orthonormal between recalibrations. Costs of a
    recalibration: 4 n m rank operations, a QR and an SVD of rank x m; of a step: some six products of 2 n m rank.

    >>> g = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    >>> CorrelationAware(rank=1).refresh(g)["basis"].abs()
    tensor([[1.],
            [0.]])
    """

    rank: int
    recalibrate: int = 5
    rate: float = 0.1
    generator: Generator | None = None

    def refresh(self, g: Tensor, basis: Any = None, mean: Tensor | None = None) -> Any:
        largest = g.abs().max()
        wide = g.to(torch.promote_types(g.dtype, torch.float32)) / torch.where(largest > 0, largest, 1)
        if basis is None:
            return {"basis": truncated_svd(wide, self.rank)[0].contiguous(), "count": 0}
        if not largest > 0:
            return basis
        P, count = basis["basis"].to(wide.dtype), basis["count"] + 1
        new = self._recalibrated(wide, P) if count % self.recalibrate == 0 else self._stepped(wide, P, mean)
        return {"basis": new.to(basis["basis"].dtype), "count": count}

    def _recalibrated(self, g: Tensor, P: Tensor) -> Tensor:
        """The left singular vectors of G within the span that one power step of P gives its right ones."""
        Q = torch.linalg.qr(g.mT @ P).Q  # (m, rank)
        return torch.linalg.svd(g @ Q, full_matrices=False)[0].contiguous()

    def _stepped(self, g: Tensor, P: Tensor, mean: Tensor | None) -> Tensor:
        with torch.enable_grad():
            P = P.clone().requires_grad_()
            rest = (g - P @ (P.mT @ g)).square().sum() / g.square().sum()
            if mean is not None and bool(mean.any()):
                moment = P @ mean.to(g.dtype)
                rest = rest * (1 - torch.cosine_similarity(moment, g, dim=0).mean())
            (slope,) = torch.autograd.grad(rest, P)
        slope = slope / slope.norm().clamp(min=1.0)
        return P.detach() - self.rate * slope

    def down(self, g: Tensor, basis: Any) -> Tensor:
        return basis["basis"].to(g.dtype).mT @ g

    def up(self, y: Tensor, basis: Any) -> Tensor:
        return basis["basis"].to(y.dtype) @ y

    def transport(self, state: State, old: Any, new: Any) -> State:
        return carry_moments(state, new["basis"].mT @ old["basis"])
