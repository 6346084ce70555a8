"""A small core and one matrix a mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad.einsum import symbol
from polyad.formats.networks.multilinear import Multilinear
from polyad.linalg import mode_product, near_unit, single_or_double
from polyad.linalg.higher_order import higher_order_svd, truncation_order


@dataclass(frozen=True, eq=False, repr=False)
class Tucker(Multilinear):
    """``X = core ×₁ factors[0] ×₂ factors[1] …``: core of shape (*batch, r₁, …, r_N), factors[n] (*batch, I_n, r_n).

    >>> x = Tucker(torch.ones(2, 2, 2), (torch.ones(3, 2), torch.ones(4, 2), torch.ones(5, 2)))
    >>> x.shape, x[0].rank, round(float(x.norm()), 3)
    ((3, 4, 5), (2, 2), 61.968)
    """

    core: Tensor
    factors: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        n = len(self.factors)
        ranks = tuple(factor.shape[-1] for factor in self.factors)
        lead = {tuple(factor.shape[:-2]) for factor in self.factors} | {tuple(self.core.shape[: self.core.ndim - n])}
        if not n or tuple(self.core.shape[-n:]) != ranks or len(lead) != 1:
            raise ValueError(
                f"core of shape {tuple(self.core.shape)} does not fit factors of shapes "
                f"{[tuple(f.shape) for f in self.factors]}: (*batch, r_1, …, r_N) and (*batch, I_n, r_n) are needed"
            )

    @property
    def rank(self) -> tuple[int, ...]:
        return tuple(self.core.shape[-len(self.factors) :])

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        n = len(self.factors)
        inner, outer = [symbol(i) for i in range(n)], [symbol(n + i) for i in range(n)]
        pairs = [o + i for o, i in zip(outer, inner, strict=True)]
        return f"{''.join(inner)},{','.join(pairs)}->{''.join(outer)}", (self.core, *self.factors)

    def with_operands(self, operands: Sequence[Tensor]) -> Self:
        return type(self)(operands[0], tuple(operands[1:]))

    def transpose(self) -> Tucker:
        return Tucker(self.core.mT, (*self.factors[:-2], self.factors[-1], self.factors[-2]))

    def rows(self, index: Tensor) -> Tensor:
        return self.factors[0][index] @ self.core @ self.factors[1].mT

    def round(self, rank: tuple[int, ...] | int | None = None, *, tol: float | None = None) -> Tucker:
        """A Tucker tensor of at most these ranks, or within a relative error of ``tol``, never formed whole.

        ``rank`` gives a number a mode, or one for all.

        The factors' QR decompositions leave a small core, which is cut by the sequentially truncated higher-order
        singular value decomposition: at most √N times the least error, and ``tol`` is kept for certain. Costs
        2 I_n r_n² operations a mode and those of the small core. Factors come out orthonormal; half precision is
        computed in float32.

        >>> x = Tucker(torch.ones(2, 2, 2), (torch.ones(3, 2), torch.ones(4, 2), torch.ones(5, 2)))
        >>> (x + x).round(tol=1e-6).rank
        (1, 1, 1)
        """
        _check.exactly_one(rank=rank, tol=tol)
        if tol is not None:
            _check.tolerance(tol)
        ranks, batch = _check.ranks(rank, self.shape[self.batch :]), self.batch
        core, scale = near_unit(single_or_double(self.core), len(self.factors))
        outer: list[Tensor] = []
        for mode, factor in enumerate(self.factors):
            unit, divisor = near_unit(single_or_double(factor), 2)
            q, r = torch.linalg.qr(unit)
            outer.append(q)
            core, again = near_unit(mode_product(core, r, mode, batch), len(self.factors))
            for one in (divisor, again):
                scale = one if scale is None else scale if one is None else scale * one
        least = None if ranks is None else tuple(min(pair) for pair in zip(ranks, core.shape[batch:], strict=True))
        modes = truncation_order(least, self.shape[batch:])  # as the whole tensor's would be
        small, inner = higher_order_svd(core, least, tol, batch=batch, modes=modes)
        small = small if scale is None else small * scale[(..., *[None] * len(outer))]
        factors = tuple((q @ u).to(self.dtype) for q, u in zip(outer, inner, strict=True))
        return Tucker(small.to(self.dtype).contiguous(), factors)

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        rank = tuple(max(1, n // 2) for n in shape)
        factors = tuple(torch.randn(n, r, generator=generator, dtype=dtype) for n, r in zip(shape, rank, strict=True))
        return cls(torch.randn(rank, generator=generator, dtype=dtype), factors)
