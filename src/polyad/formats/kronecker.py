"""Kronecker products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor

from polyad.formats._multilinear import _Multilinear


@dataclass(frozen=True, eq=False, repr=False)
class Kronecker(_Multilinear):
    """``W = first ⊗ second``: first of shape (a, c), second of shape (b, d), W of shape (a b, c d).

    ``linear`` never forms W: a row costs the cheaper of 2 (a c d + a b d) and 2 (b c d + a b c) operations.
    """

    first: Tensor
    second: Tensor

    def __post_init__(self) -> None:
        if self.first.ndim != 2 or self.second.ndim != 2:
            raise ValueError(
                f"first of shape {tuple(self.first.shape)} and second of shape {tuple(self.second.shape)} must be "
                "matrices; a Kronecker product has no leading batch dimensions here"
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
        if len(shape) != 2:
            raise ValueError(f"shape={shape} is no matrix's; a Kronecker product is drawn for two dimensions")
        a, c = (next((k for k in range(2, n + 1) if n % k == 0), 1) for n in shape)
        first = torch.randn(a, c, generator=generator, dtype=dtype)
        second = torch.randn(shape[0] // a, shape[1] // c, generator=generator, dtype=dtype)
        return cls(first, second)
