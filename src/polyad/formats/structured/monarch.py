"""Products of two block-diagonal matrices and a permutation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from polyad.formats.format import Format
from polyad.formats.networks.multilinear import Multilinear
from polyad.formats.structured.block_tensor_train import BlockTensorTrain
from polyad.formats.structured.grid import balanced_divisor, check_interleaved, positions


@dataclass(frozen=True, eq=False, repr=False)
class Monarch(Multilinear):
    """``W = P L Pᵀ R``: two block-diagonal matrices L and R and the permutation P that turns a grid over.

    ``left`` (*batch, J, l, K) holds the J blocks of L, ``right`` (*batch, K, J, i) the K blocks of R; W has J l rows
    and K i columns. In einsum's words W[(l j), (k i)] = left[j, l, k] · right[k, j, i]: cut into J x K blocks by
    every J-th row and by runs of i columns, each block has rank one. The transpose has its rows in runs and takes
    every K-th column; ``interleaved`` says which of the two, "rows" (as the paper has it) or "columns", is taken in
    steps. The paper's square case has J = K = l = i = √n.

    Stores J K (l + i) numbers; ``linear`` takes two operations for each a row, 4 n^1.5 of a balanced square one
    against 2 n², as two batched products. Two Monarch matrices add up to a ``BlockTensorTrain`` of rank 2, and their
    product entry by entry is one again. Measured in float32 on one core, faster than
    dense from n = 256 with 256 rows, 512 with 16 and 2048 with one.

    >>> w = Monarch(torch.ones(2, 3, 4), torch.ones(4, 2, 5))
    >>> w.shape, w.parameters, w.linear(torch.ones(20)).tolist()
    ((6, 20), 64, [20.0, 20.0, 20.0, 20.0, 20.0, 20.0])
    """

    matrix: ClassVar[bool] = True

    left: Tensor
    right: Tensor
    interleaved: str = "rows"

    def __post_init__(self) -> None:
        left, right = self.left.shape, self.right.shape
        check_interleaved(self.interleaved)
        agree = min(len(left), len(right)) >= 3 and left[:-3] == right[:-3]
        if not agree or (left[-3], left[-1]) != (right[-2], right[-3]):
            raise ValueError(
                f"left of shape {tuple(left)} and right of shape {tuple(right)} do not agree: (*batch, J, l, K) and "
                "(*batch, K, J, i) are needed, with one batch, one J and one K"
            )

    @property
    def blocks(self) -> tuple[int, int]:
        """J and K: how many blocks there are down the rows and along the columns."""
        return self.left.shape[-3], self.left.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        (*lead, j, a, k), i = self.left.shape, self.right.shape[-1]
        return (*lead, j * a, k * i)

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        output = "(lj)(ki)" if self.interleaved == "rows" else "(jl)(ik)"
        return f"jlk,kji->{output}", (self.left, self.right)

    def linear(self, x: Tensor) -> Tensor:
        return self.block_tensor_train().linear(x)

    def flops(self, batch: int) -> int:
        return 2 * batch * (self.left.numel() + self.right.numel())

    def block_tensor_train(self) -> BlockTensorTrain:
        """The same matrix as a block tensor train of rank one, without a copy."""
        return BlockTensorTrain(self.left.unsqueeze(-1), self.right.unsqueeze(-3), self.interleaved)

    def __add__(self, other: Format) -> Format:
        """With another Monarch matrix of the same blocks a ``BlockTensorTrain`` of rank 2, otherwise a ``Sum``."""
        if isinstance(other, Monarch | BlockTensorTrain):
            total = self.block_tensor_train() + other
            if isinstance(total, BlockTensorTrain):
                return total
        return super().__add__(other)

    def transpose(self) -> Monarch:
        flipped = "columns" if self.interleaved == "rows" else "rows"
        return Monarch(self.right.mT, self.left.mT, flipped)

    def rows(self, index: Tensor) -> Tensor:
        j, a = positions(index, self.left.shape[0], self.left.shape[1], self.interleaved)
        left, right = self.left[j, a], self.right.transpose(0, 1)[j]  # (…, K), (…, K, i)
        product = left.unsqueeze(-1) * right
        return (product if self.interleaved == "rows" else product.mT).flatten(-2)

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        """Normal factors, and as many blocks as the divisor nearest the root of each side."""
        *lead, n, m = shape
        j, k = balanced_divisor(n), balanced_divisor(m)
        left = torch.randn(*lead, j, n // j, k, generator=generator, dtype=dtype)
        return cls(left, torch.randn(*lead, k, j, m // k, generator=generator, dtype=dtype))
