"""A product of a tall and a wide matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad.formats.networks.multilinear import Multilinear
from polyad.formats.stored.dense import convolve, dense_product
from polyad.linalg import evenly, near_unit, single_or_double, truncated_svd


@dataclass(frozen=True, eq=False, repr=False)
class LowRank(Multilinear):
    """``W = left @ right``: left of shape (*batch, n, r), right of shape (*batch, r, m).

    Stores r(n + m) numbers; ``linear`` takes 2 r (n + m) operations a row.
    """

    matrix: ClassVar[bool] = True

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        left, right = self.left.shape, self.right.shape
        if len(left) < 2 or len(right) < 2 or left[-1] != right[-2] or left[:-2] != right[:-2]:
            raise ValueError(
                f"left of shape {tuple(left)} and right of shape {tuple(right)} do not agree: (*batch, n, r) and "
                "(*batch, r, m) are needed, so that left's last dimension equals right's last but one"
            )

    @property
    def rank(self) -> int:
        return self.left.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.left.shape[:-1], self.right.shape[-1])

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        return "ab,bc->ac", (self.left, self.right)

    def to_dense(self) -> Tensor:
        return self.left @ self.right

    def added_to(self, weight: Tensor, scale: float = 1.0) -> Tensor:
        if max(weight.ndim, self.left.ndim) > 2:
            return super().added_to(weight, scale)
        return torch.addmm(weight, self.left, self.right, alpha=scale)

    def linear(self, x: Tensor) -> Tensor:
        return dense_product(self.left, dense_product(self.right, x))

    def transpose(self) -> LowRank:
        return LowRank(self.right.mT, self.left.mT)

    def rows(self, index: Tensor) -> Tensor:
        return self.left[index] @ self.right

    def combine(self, weights: Tensor) -> Tensor:
        return weights @ self.left.to(weights.dtype) @ self.right.to(weights.dtype)

    def growth(self) -> dict[str, int]:
        return {"left": 1, "right": 0}

    def round(self, rank: int | None = None, *, tol: float | None = None) -> LowRank:
        """The closest matrix of at most ``rank``, or of the least rank with a relative Frobenius error up to ``tol``.

        The optimum, and certified: the factors' QR decompositions leave a matrix (r, r) whose singular values are
        those of the whole. Costs 2 (n + m) r² operations. A batch takes the largest rank needed and pads with zeros.
        The factors then have equal norms; half precision is computed in float32.

        >>> twice = LowRank(torch.ones(3, 2), torch.ones(2, 4))
        >>> twice.round(tol=1e-6).rank
        1
        """
        _check.exactly_one(rank=rank, tol=tol)
        (left, a), (right, b) = (near_unit(single_or_double(t), 2) for t in (self.left, self.right.mT))
        (q, r), (p, t) = torch.linalg.qr(left), torch.linalg.qr(right)
        core = r @ t.mT
        outer, inner = evenly(*truncated_svd(core, None if rank is None else min(rank, *core.shape[-2:]), tol=tol))
        first, second = q @ outer, inner @ p.mT
        first = first if a is None else first * a[..., None, None]
        second = second if b is None else second * b[..., None, None]
        return LowRank(first.to(self.dtype), second.to(self.dtype))

    def convolve(self, x: Tensor, kernel: tuple[int, ...], **geometry: Any) -> Tensor:
        if geometry.get("groups", 1) != 1:
            return super().convolve(x, kernel, **geometry)
        inner = convolve(x, self.right, kernel, **geometry)  # r channels
        channels = -1 - len(kernel)  # counted from behind: x may come without a batch
        return dense_product(self.left, inner.movedim(channels, -1)).movedim(-1, channels)

    def flops(self, batch: int) -> int:
        return 2 * batch * (self.left.numel() + self.right.numel())

    @classmethod
    def empty(cls, shape: tuple[int, ...], rank: int, *, dtype: torch.dtype = torch.float32) -> Self:
        """A format of this shape and rank on the meta device, whose sizes and operations can be read at no cost."""
        left = torch.empty((*shape[:-1], rank), dtype=dtype, device="meta")
        return cls(left, torch.empty((*shape[:-2], rank, shape[-1]), dtype=dtype, device="meta"))

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        rank = max(1, min(shape[-2:]) // 2)
        left = torch.randn((*shape[:-1], rank), generator=generator, dtype=dtype)
        right = torch.randn((*shape[:-2], rank, shape[-1]), generator=generator, dtype=dtype)
        return cls(left, right)
