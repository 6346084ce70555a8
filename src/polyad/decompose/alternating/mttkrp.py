"""Products of a dense tensor with all factors but one (MTTKRP), reusing what neighbouring modes share.

Factors are kept transposed, as rows: (batch, starts, rank, I_n). The starts share one product with the tensor.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from polyad.linalg.modes import halfway


def khatri_rao(factors: Sequence[Tensor]) -> Tensor:
    """Row by row Kronecker products: (…, rank, I), (…, rank, J), … to (…, rank, I J …)."""
    return functools.reduce(lambda a, b: (a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(-2), factors)


def hadamard(matrices: Sequence[Tensor]) -> Tensor:
    """The product entry by entry."""
    return functools.reduce(torch.mul, matrices)


def mttkrp_sweep(x: Tensor, factors: list[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Each mode in turn and its product (batch, rank, I_n) with the others' conjugate rows as they are then.

    Nothing is kept from one sweep to the next, so factors may change between them: two large products each.
    """
    products = Products(x)
    for mode in range(len(factors)):
        yield mode, products(mode, [factor.conj().unsqueeze(1) for factor in factors]).squeeze(1)


class Products:
    """x times all factors but one, called mode after mode, reusing what neighbouring modes share.

    x is (batch, I₁, …, I_N), N ≥ 2; called with modes 0, 1, …, N - 1, 0, … and the factors as they are then. At order
    3, and above it wherever that leaves less than a third of x, x is multiplied by the factor updated last, which
    serves the N - 1 modes that come next: N large products for N - 1 sweeps. Else each half of the modes shares one
    product, two a sweep. Either is halved further as a binary tree. x is never copied to another layout.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x
        # a path from below x: left and right modes, and x without the others, (batch * starts * rank, left, right)
        self.nodes: list[tuple[tuple[int, ...], tuple[int, ...], Tensor]] = []

    def __call__(self, mode: int, factors: list[Tensor]) -> Tensor:
        """The sum over all other modes, of shape (batch, starts, rank, I_mode), in x's dtype."""
        lead = factors[0].shape[:3]
        while self.nodes and (mode not in self._modes() or len(self.nodes[-1][2]) != math.prod(lead)):
            self.nodes.pop()
        if not self.nodes:
            last = (mode - 1) % len(factors)
            small = 3 * lead[1] * lead[2] <= self.x.shape[last + 1]
            if len(factors) == 3 or (len(factors) > 3 and small):
                self._without(last, factors[last])
            else:
                self._half(mode, factors)
        while len(self._modes()) > 1:
            left, right, partial = self.nodes[-1]
            keep, drop = (left, right) if mode in left else (right, left)
            vector = khatri_rao([factors[i].to(self.x.dtype) for i in drop]).reshape(len(partial), 1, -1)
            self._put(keep, vector @ (partial.mT if keep is left else partial))
        return self.nodes[-1][2].reshape(*lead, -1)

    def _modes(self) -> tuple[int, ...]:
        return self.nodes[-1][0] + self.nodes[-1][1]

    def _put(self, modes: tuple[int, ...], product: Tensor) -> None:
        cut = halfway(sizes) if len(sizes := [self.x.shape[i + 1] for i in modes]) > 1 else 1
        self.nodes.append(
            (modes[:cut], modes[cut:], product.reshape(-1, math.prod(sizes[:cut]), math.prod(sizes[cut:])))
        )

    def _without(self, gone: int, factor: Tensor) -> None:
        """x summed over one mode, slice by slice: the inner side of each product lies contiguous in x."""
        x, n = self.x, self.x.ndim - 1
        if gone == 0:
            cut, slices = 2, x.flatten(3).transpose(1, 2)
        elif gone == n - 1:
            cut, slices = 1, x.flatten(2, -2).mT
        else:
            cut, slices = gone, x.flatten(1, gone).flatten(3)
        rows = factor.to(x.dtype).flatten(1, 2)
        if len(x) == 1:  # an expanded batch of rows needs no copy in bmm
            product = torch.bmm(rows.expand(slices.shape[1], -1, -1), slices[0]).transpose(0, 1)
        else:
            product = (rows.unsqueeze(1) @ slices).transpose(1, 2).flatten(0, 1)
        left, right = (tuple(i for i in part if i != gone) for part in (range(cut), range(cut, n)))
        self.nodes.append((left, right, product))

    def _half(self, mode: int, factors: list[Tensor]) -> None:
        """x summed over the half of its modes that this one is not in."""
        cut = halfway(self.x.shape[1:])
        left, right = tuple(range(cut)), tuple(range(cut, len(factors)))
        keep, drop = (left, right) if mode in left else (right, left)
        rows = khatri_rao([factors[i].to(self.x.dtype) for i in drop]).flatten(1, 2)
        x = self.x.flatten(cut + 1).flatten(1, cut)
        self._put(keep, rows @ (x.mT if keep is left else x))  # with few rows, x first is up to thirty times slower


def residual(x: Tensor, factors: list[Tensor], norm: Tensor, chunk: int = 1 << 20) -> Tensor:
    """The squared norm of ``x / norm - Σ_r ∘ₙ factors[n]``, (batch, starts) in float64; one pass, nothing cancels.

    ``norm`` has shape (batch,). Works slab by slab of about ``chunk`` numbers.
    """
    half = halfway(x.shape[1:])
    left, right = (khatri_rao(part) for part in (factors[:half], factors[half:]))
    matrix = x.reshape(len(x), left.shape[-1], right.shape[-1])
    left, right = (left * norm[:, None, None, None]).to(x.dtype), right.to(x.dtype)
    total = left.new_zeros(left.shape[:2], dtype=torch.float64)
    step = max(1, chunk // (len(x) * right.shape[-1]))
    for start in range(0, matrix.shape[1], step):
        for s in range(left.shape[1]):
            rows = left[:, s, :, start : start + step].mT
            rest = torch.baddbmm(matrix[:, start : start + step], rows, right[:, s], alpha=-1)
            total[:, s] += rest.double().square_().flatten(1).sum(1)
    return total / norm.square().unsqueeze(1)
