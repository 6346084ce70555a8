"""Kronecker products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from polyad.formats._multilinear import _Multilinear


@dataclass(frozen=True, eq=False, repr=False)
class Kronecker(_Multilinear):
    """``W = first ⊗ second``: first of shape (*batch, a, c), second (*batch, b, d), W of shape (*batch, a b, c d).

    ``linear`` never forms W: a row costs the cheaper of 2 (a c d + a b d) and 2 (b c d + a b c) operations.
    """

    matrix: ClassVar[bool] = True

    first: Tensor
    second: Tensor

    def __post_init__(self) -> None:
        if min(self.first.ndim, self.second.ndim) < 2 or self.first.shape[:-2] != self.second.shape[:-2]:
            raise ValueError(
                f"first of shape {tuple(self.first.shape)} and second of shape {tuple(self.second.shape)} must be "
                "matrices, (*batch, a, c) and (*batch, b, d) with one batch"
            )

    def network(self) -> tuple[str, tuple[Tensor, ...]]:
        return "ac,bd->(ab)(cd)", (self.first, self.second)

    def transpose(self) -> Kronecker:
        return Kronecker(self.first.mT, self.second.mT)

    def rows(self, index: Tensor) -> Tensor:
        b = self.second.shape[0]
        first, second = self.first[index // b], self.second[index % b]  # (…, c), (…, d)
        return (first.unsqueeze(-1) * second.unsqueeze(-2)).flatten(-2)

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        *lead, rows, columns = shape
        a, c = (next((k for k in range(2, n + 1) if n % k == 0), 1) for n in (rows, columns))
        first = torch.randn(*lead, a, c, generator=generator, dtype=dtype)
        return cls(first, torch.randn(*lead, rows // a, columns // c, generator=generator, dtype=dtype))
