"""The columns of the discrete cosine transform that a gradient is most in line with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyad._card import Paper, method
from polyad.optim.subspace import carry_moments
from polyad.optim.transform import State

DCT = Paper(
    "Modoranu, Safaryan, Schultheis, Alistarh",
    2025,
    "SVD-Free Low-Rank Adaptive Gradient Optimization for Large Language Models",
    "arXiv:2505.17967",
    handle="dct-adaptive",
    adds="a fixed orthogonal basis, of which the gradient chooses columns",
)


@method("subspace", name="cosine_columns", example={"rank": 3}, papers=(DCT,))
@dataclass(frozen=True)
class CosineColumns:
    """The ``rank`` columns of the orthogonal cosine transform of size n whose coordinates have the largest ℓ1 norm.

    Kept are n and the places of the columns, 8 rank bytes, in rising order: the moments of a column that stays go to
    its new place, and those of a new one begin at zero. A refresh is a fast transform of the gradient, O(m n log n),
    and a sort; the columns are computed at every use, n rank cosines. The released code has two transforms that are
    each other's transpose; this is the one of the paper's formula.

    >>> CosineColumns(rank=1).refresh(torch.ones(4, 6))["columns"]  # a constant is the first column
    tensor([0])
    """

    rank: int

    def refresh(self, g: Tensor, basis: Any = None, mean: Tensor | None = None) -> Any:  # noqa: ARG002
        largest = g.abs().max()
        lengths = cosine_transform(g / torch.where(largest > 0, largest, 1)).abs().sum(1)
        return {"columns": lengths.topk(self.rank).indices.sort().values, "rows": len(g)}

    def down(self, g: Tensor, basis: Any) -> Tensor:
        return cosine_columns(basis["rows"], basis["columns"], g.dtype).mT @ g

    def up(self, y: Tensor, basis: Any) -> Tensor:
        return cosine_columns(basis["rows"], basis["columns"], y.dtype) @ y

    def transport(self, state: State, old: Any, new: Any) -> State:
        return carry_moments(state, (new["columns"][:, None] == old["columns"][None]).to(state["mean"].dtype))


def cosine_columns(rows: int, columns: Tensor, dtype: torch.dtype) -> Tensor:
    """These columns (rows, number) of the orthogonal cosine transform: ``√(2/n) cos(π k (2 j + 1) / 2 n)``, the first
    over √2."""
    wide = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    places = torch.arange(rows, device=columns.device)
    # the angle's whole turns are taken off in whole numbers, so that long columns stay exact in float32
    turns = (columns[None] * (2 * places[:, None] + 1)) % (4 * rows)
    values = torch.cos(turns.to(wide) * (math.pi / (2 * rows))) * (2 / rows) ** 0.5
    return torch.where(columns[None] == 0, values / 2**0.5, values).to(dtype)


def cosine_transform(x: Tensor) -> Tensor:
    """All coordinates (n, m) of a matrix (n, m) in the cosine transform of size n, by one complex transform of n.

    >>> x = torch.eye(5, dtype=torch.float64)
    >>> torch.allclose(cosine_transform(x), cosine_columns(5, torch.arange(5), x.dtype).mT)
    True
    """
    n, wide = len(x), x.to(torch.promote_types(x.dtype, torch.float32))
    folded = torch.cat([wide[::2], wide[1::2].flip(0)])  # even places upwards, then odd ones downwards
    places = torch.arange(n, device=x.device, dtype=wide.dtype)
    twiddle = torch.polar(torch.full_like(places, (2 / n) ** 0.5), -math.pi * places / (2 * n))
    values = (torch.fft.fft(folded, dim=0) * twiddle[:, None]).real
    values[0] /= 2**0.5
    return values.to(x.dtype)
