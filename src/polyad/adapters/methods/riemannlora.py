"""A low-rank update that moves on the manifold of matrices of its rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import LowRank
from polyad.linalg import truncated_svd
from polyad.statistics import Moments


@method(
    "adapter",
    name="riemannlora",
    example={"rank": 2},
    needs={"gradient"},
    papers=(
        Paper(
            "Bogachev, Aletov, Molozhavenko, Bobkov, Soboleva, Alanov, Rakhuba",
            2025,
            "RiemannLoRA: A Unified Riemannian Framework for Ambiguity-Free LoRA Optimization",
            "arXiv:2507.12142",
            handle="riemannlora",
        ),
    ),
)
class RiemannLoRA(Adapter):
    """``W' = W - B₀ A₀ + B A`` with X = B A on the manifold of rank r; steps depend on X and not on its factors.

    B₀ is the first r left singular vectors of the loss's gradient and A₀ the next r right ones, times ``start``: of
    all points of rank r the tangent space there holds most of the gradient, its first 2 r singular values. The paper
    finds them by a randomised SVD of two passes, here the gradient is dense. A₀ and B₀ are saved.

    The hooks replace the gradients of A and B by the coordinates of one tangent vector: the gradient by X projected
    on the tangent space, plus ``momentum`` times the last one, which is carried over by projection. With B = Q R and
    Aᵀ = P S, P and Q orthonormal, it is Q a + b Pᵀ with Qᵀ b = 0; A's gradient is a and B's is b, so that their
    length, by which loops clip, is the tangent vector's and depends on X alone. After the optimiser's step, which
    hooks read as one along the tangent, the point of rank 2 r is brought back to rank r by an SVD. **Its optimiser is
    plain ``torch.optim.SGD``**, whose step is then -lr times the tangent vector; others scale A and B apart and
    depend on the factors, whose signs and order the SVD gives anew after every step. A loop of your own must take SGD
    too, and call ``after_step``. Without the hooks this is a LoRA with that start. A row takes 4 r (in + out)
    operations; a step takes two QR decompositions of 2 r columns more, and four of r.

    This is the first version of the paper; its second, "LoRA meets Riemannion", takes steps of equal singular values
    on the same manifold, which are not here.

    >>> sum(p.numel() for p in RiemannLoRA((6, 8), rank=2).parameters())
    28
    """

    A0: Tensor
    B0: Tensor
    A_was: Tensor
    B_was: Tensor
    A_moving: Tensor
    B_moving: Tensor

    optimizer = torch.optim.SGD
    learning_rate = 0.15

    def __init__(self, shape: tuple[int, ...], *, rank: int = 8, start: float = 1.0, momentum: float = 0.9) -> None:
        super().__init__()
        out, n = matrix(shape)
        self.rank = _check.rank(rank, min(out, n) // 2, f"half the shorter side of a weight of shape {shape}")
        if not start > 0 or not 0 <= momentum < 1:
            raise ValueError(f"start={start} must be above 0, and momentum={momentum} at least 0 and below 1")
        self.start, self.momentum = start, momentum
        self.A, self.B = nn.Parameter(torch.zeros(rank, n)), nn.Parameter(torch.zeros(out, rank))
        for name, p in (("A", self.A), ("B", self.B)):
            self.register_buffer(f"{name}0", torch.zeros(p.shape))
            for kind in ("was", "moving"):
                self.register_buffer(f"{name}_{kind}", torch.zeros(p.shape), persistent=False)

    def init(self, base: Frozen, *, gradient: Tensor | None = None, moments: Moments | None = None) -> None:  # noqa: ARG002
        assert gradient is not None
        u, _, v = truncated_svd(gradient.flatten(1).to(torch.float64), 2 * self.rank)
        for tensor in (self.B0, self.B):
            tensor.copy_(u[:, : self.rank])
        for tensor in (self.A0, self.A):
            tensor.copy_(self.start * v[self.rank :])

    def update(self, base: Frozen) -> LowRank:  # noqa: ARG002
        return LowRank(torch.cat((self.B, -self.B0), 1), torch.cat((self.A, self.A0), 0))

    @torch.no_grad()
    def project(self) -> None:
        """Put a tangent vector's coordinates in place of the gradients, and note the point that it starts from."""
        A, B = self.A, self.B
        if A.grad is None or B.grad is None:
            return
        dB, dA = tangent(A, B, B.grad, A.grad)
        if self.momentum:
            cat = torch.cat
            last = LowRank(cat((self.B_moving, self.B_was), -1), cat((self.A_was, self.A_moving), -2))
            mB, mA = tangent(A, B, last.left @ (last.right @ A.mT), (B.mT @ last.left) @ last.right)
            dB, dA = dB + self.momentum * mB, dA + self.momentum * mA
        B.grad.copy_(dB @ torch.linalg.qr(A.mT).R.mT)
        A.grad.copy_(torch.linalg.qr(B).R @ dA)
        for target, tensor in ((self.A_was, A), (self.B_was, B), (self.A_moving, dA), (self.B_moving, dB)):
            target.copy_(tensor)

    @torch.no_grad()
    def retract(self) -> None:
        """Move from the point that the step reached along the tangent, of rank 2 r, to the nearest of rank r."""
        A, B = self.A, self.B
        if torch.equal(A, self.A_was) and torch.equal(B, self.B_was):
            return
        P, Q = torch.linalg.qr(self.A_was.mT).Q, torch.linalg.qr(self.B_was).Q
        left = torch.cat((Q, B - self.B_was), -1)
        right = torch.cat((Q.mT @ self.B_was @ self.A_was + A - self.A_was, P.mT), -2)
        nearest = LowRank(left, right).round(rank=self.rank)
        B.copy_(nearest.left)
        A.copy_(nearest.right)

    @classmethod
    def after_backward(cls, adapters: Sequence[Self], step: int, total: int) -> None:  # noqa: ARG003
        for adapter in adapters:
            adapter.project()

    @classmethod
    def after_step(cls, adapters: Sequence[Self], step: int, total: int) -> None:  # noqa: ARG003
        for adapter in adapters:
            adapter.retract()


def tangent(A: Tensor, B: Tensor, ZA: Tensor, BZ: Tensor) -> tuple[Tensor, Tensor]:
    """dB and dA of the projection of Z on the tangent space at B A, given Z Aᵀ and Bᵀ Z: dB A + B dA, with Bᵀ dB = 0.

    The same vector whatever the factors of B A are. A direction that B A has lost gets nothing.
    """
    outer, inner = (torch.linalg.pinv(gram, hermitian=True) for gram in (B.mT @ B, A @ A.mT))
    dB = ZA @ inner
    return dB - B @ (outer @ (B.mT @ dB)), outer @ BZ
