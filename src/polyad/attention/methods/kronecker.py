"""Attention on pictures and volumes over averages along the axes, not over every place."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyad._card import Paper, method
from polyad.attention.module import check_divides

KRONECKER = Paper(
    "Gao, Wang, Ji", 2020, "Kronecker Attention Networks", "doi:10.1145/3394486.3403065", "kronecker-attention-nets",
    "KAO_KV and KAO_QKV: keys and values, or queries too, are averages along the axes",
)  # fmt: skip


@method(
    "layer",
    name="kronecker_attention",
    papers=(KRONECKER,),
    example={"channels": 6, "heads": 2, "x": (2, 6, 4, 5), "parameters": 4 * 6 * (6 + 1)},
)
class KroneckerAttention(nn.Module):
    """Attention of x (batch, channels, n_1, …, n_k), k ≥ 2, to the n_1 + … + n_k averages over all axes but one.

    ``averages="kv"`` (KAO_KV): every place asks the averages, at 2 Πn Σn channels multiplications for 2 (Πn)²
    channels of full attention. ``averages="qkv"`` (KAO_QKV): the averages ask each other, at 2 (Σn)² channels, and
    place (i, j, …) gets the sum of what its row, its column, … got. Queries, keys and values are linear in the
    channels, with ``heads`` heads; no positions, no mask, no residual: the surrounding network adds these. Any
    floating dtype.

    >>> KroneckerAttention(4)(torch.ones(2, 4, 5, 6)).shape
    torch.Size([2, 4, 5, 6])
    """

    def __init__(self, channels: int, *, heads: int = 1, averages: Literal["kv", "qkv"] = "kv") -> None:
        super().__init__()
        check_divides("heads", heads, "channels", channels)
        if averages not in ("kv", "qkv"):
            raise ValueError(f"averages={averages!r} is not known; choose 'kv' or 'qkv'")
        self.heads, self.averages = heads, averages
        self.q_proj, self.kv_proj = nn.Linear(channels, channels), nn.Linear(channels, 2 * channels)
        self.o_proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The output, of x's shape."""
        if x.ndim < 4 or x.shape[1] != self.q_proj.in_features or 0 in x.shape:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; (batch, {self.q_proj.in_features}, rows, columns, …) is needed"
            )
        sizes = x.shape[2:]
        context = axis_averages(x)
        places = x.flatten(2).mT if self.averages == "kv" else context
        out = self.o_proj(self._attend(places, context)).mT
        return out.unflatten(2, sizes) if self.averages == "kv" else outer_sum(out, sizes)

    def _attend(self, places: Tensor, context: Tensor) -> Tensor:
        parts = (self.q_proj(places), *self.kv_proj(context).chunk(2, -1))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def axis_averages(x: Tensor) -> Tensor:
    """For each axis of x (batch, channels, n_1, …), its averages over the others; (batch, n_1 + …, channels)."""
    axes = range(2, x.ndim)
    return torch.cat([x.mean([a for a in axes if a != axis]).mT for axis in axes], 1)


def outer_sum(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """y[…, i, j, …] = row i + column j + …, of x (batch, channels, n_1 + …)."""
    total = x.new_zeros(())
    for axis, part in enumerate(x.split(sizes, -1)):
        total = total + part.reshape(*part.shape[:2], *(n if a == axis else 1 for a, n in enumerate(sizes)))
    return total
