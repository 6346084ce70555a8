"""Products of a dense tensor with all factors but one (MTTKRP), with what neighbouring modes share kept.

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


def mttkrp(x: Tensor) -> ThreeModes | Tree:
    """The products for x of shape (batch, I₁, …, I_N), N ≥ 2, to be asked for mode after mode, round and round."""
    return ThreeModes(x) if x.ndim == 4 else Tree(x)


def sweep(x: Tensor, factors: list[Tensor]) -> Iterator[tuple[int, Tensor]]:
    """Each mode in turn and its product (batch, rank, I_n) with the rows of the others as they are when it is asked.

    Nothing is kept from one sweep to the next, so factors may change between them: two large products each.
    """
    products = mttkrp(x)
    for mode in range(len(factors)):
        yield mode, products(mode, [factor.unsqueeze(1) for factor in factors]).squeeze(1)


class ThreeModes:
    """Order 3: x times one factor serves the two modes that are updated next, so two sweeps need three products.

    Called with modes 0, 1, 2, 0, 1, … and the factors as they are then. The product that is kept was made with the
    factor of the mode updated last, which is the last to change again. No layout but x's own is ever made.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.gone = 0  # the mode that ``kept`` has been summed over
        self.kept: Tensor | None = None

    def __call__(self, mode: int, factors: list[Tensor]) -> Tensor:
        """Σ over the other two modes, of shape (batch, starts, rank, I_mode), in x's dtype."""
        batch, starts, rank, _ = factors[0].shape
        if self.kept is None or self.gone == mode or self.kept.shape[:2] != (batch * starts, rank):
            self.gone = (mode - 1) % 3
            self.kept = self._product(factors[self.gone]).reshape(batch * starts, rank, *self._left())
        other = 3 - mode - self.gone
        vector = factors[other].to(self.x.dtype).reshape(batch * starts * rank, 1, -1)
        kept = self.kept.flatten(0, 1)
        return (vector @ (kept.mT if mode < other else kept)).reshape(batch, starts, rank, -1)

    def _left(self) -> list[int]:
        return [n for mode, n in enumerate(self.x.shape[1:]) if mode != self.gone]

    def _product(self, factor: Tensor) -> Tensor:
        """x summed over the mode ``gone``: (batch, starts * rank, I, J); products whose inner side is contiguous."""
        x, (batch, first) = self.x, self.x.shape[:2]
        rows = factor.to(x.dtype).flatten(1, 2)
        if self.gone == 0:
            return (rows @ x.flatten(2)).unflatten(2, x.shape[2:])
        slices = x if self.gone == 1 else x.mT
        if batch == 1:  # an expanded batch of rows needs no copy in bmm
            return torch.bmm(rows.expand(first, -1, -1), slices[0]).transpose(0, 1).unsqueeze(0)
        return (rows.unsqueeze(1) @ slices).transpose(1, 2)


class Tree:
    """Order 4 and more: a binary tree over the modes. Each half of the modes shares one product with x.

    Called with modes 0, 1, …, N - 1, 0, …; two large products a sweep, everything below them is smaller by the
    size of half of the modes.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.nodes: list[tuple[range, Tensor]] = []  # a path from below the root: modes left, and x without the rest

    def __call__(self, mode: int, factors: list[Tensor]) -> Tensor:
        """Σ over all other modes, of shape (batch, starts, rank, I_mode), in x's dtype."""
        lead = factors[0].shape[:3]
        while self.nodes and (mode not in self.nodes[-1][0] or self.nodes[-1][1].shape[0] != math.prod(lead)):
            self.nodes.pop()
        sizes = self.x.shape[1:]
        while not self.nodes or len(self.nodes[-1][0]) > 1:
            held = self.nodes[-1][0] if self.nodes else range(len(sizes))
            middle = halfway([sizes[i] for i in held]) + held.start
            left, right = range(held.start, middle), range(middle, held.stop)
            keep, drop = (left, right) if mode in left else (right, left)
            rows = khatri_rao([factors[i].to(self.x.dtype) for i in drop])
            whole = (math.prod(sizes[i] for i in left), math.prod(sizes[i] for i in right))
            self.nodes.append((keep, self._sum(rows, whole, keep is left)))
        return self.nodes[-1][1].reshape(*lead, -1)

    def _sum(self, rows: Tensor, whole: tuple[int, int], last: bool) -> Tensor:
        """The deepest node summed over its last modes, or its first: (batch * starts * rank, what is left)."""
        if self.nodes:
            held = self.nodes[-1][1].view(-1, *whole)
            vector = rows.reshape(-1, 1, rows.shape[-1])
            return (vector @ (held.mT if last else held)).squeeze(1)
        x, rows = self.x.reshape(len(self.x), *whole), rows.flatten(1, 2)
        found = (x @ rows.mT).mT if last else rows @ x
        return found.reshape(-1, found.shape[-1])


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
