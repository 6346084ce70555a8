"""Keys and values of neighbouring layers in one basis of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.cache.codec import Codec, Place, Turn
from polyad.cache.codecs.coordinates import join_heads, mix, scores, split_heads
from polyad.formats import Dense, Format, LowRank
from polyad.linalg import truncated_svd

PAPER = Paper(
    "Chang, Lin, Lin, Chiang, Akhauri, Dai, Jiang, Li, Wu, Abdelfattah", 2025,
    "xKV: Cross-Layer SVD for KV-Cache Compression", "arXiv:2503.18893", handle="xkv",
    adds="one SVD of the keys, and one of the values, of a group of layers",
)  # fmt: skip


@method(
    "codec",
    name="xkv",
    makes=LowRank,
    example={"rank": 8},
    exact={"rank": 32},
    papers=(PAPER,),
    instead=(
        "Where neighbouring layers do not share the leading directions of their tokens (`token_alignment` "
        "says how far they do): one layer a group, which loses less at equal bytes."
    ),
)
class XKV(Codec):
    """Keys before rotation, and values, of four layers side by side as a truncated SVD of each call's tokens.

    For X = [X_1 … X_G] of shape (tokens, G H d), X ≈ A [B_1 … B_G] with A (tokens, ``rank``) held once for the group
    and B_l (rank, H d) for each layer, all of it counted with the sequence. ``value_rank`` (None: ``rank``) is that
    of values. Tokens leave in multiples of ``block``. Where at least ``rank`` of them leave at once, they get an SVD
    of their own, so that all chunks of a prompt are compressed; fewer stay exact, as the paper's tokens of decoding
    do. With a ``block`` of several times the rank none does. A subclass with another ``layers`` groups that many.

    Cost: an SVD of (tokens, G H d).

    >>> x = torch.randn(1, 2, 50, 4)
    >>> (first, _), (second, _) = XKV(rank=3).encode_layers([(x, x), (x * 2, x)], [x, x])
    >>> (
    ...     first.left is second.left,
    ...     first.right.shape,
    ...     torch.allclose(second.to_dense(), 2 * first.to_dense(), atol=1e-4),
    ... )
    (True, torch.Size([1, 1, 3, 8]), True)
    """

    before_rotation = True
    layers: ClassVar[int] = 4

    def __init__(
        self, place: Place | None = None, *, rank: int, value_rank: int | None = None, block: int = 1
    ) -> None:
        self.heads = 1 if place is None else place.key_heads
        self.ranks, self.block = (rank, rank if value_rank is None else value_rank), block
        for name, size in (("rank", rank), ("value_rank", self.ranks[1]), ("block", block)):
            if size < 1:
                raise ValueError(f"{name}={size} is below 1; choose a number from 1")

    def encode(self, keys: Tensor, values: Tensor, queries: Tensor) -> tuple[Format, Format]:
        return self.encode_layers([(keys, values)], [queries])[0]

    def encode_layers(
        self,
        entries: Sequence[tuple[Tensor, Tensor]],
        queries: Sequence[Tensor],  # noqa: ARG002
    ) -> list[tuple[Format, Format]]:
        keys, values = (
            _share_rows([join_heads(x) for x in side], rank)
            for side, rank in zip(zip(*entries, strict=True), self.ranks, strict=True)
        )
        return list(zip(keys, values, strict=True))

    def keys(self, stored: Format) -> Tensor:
        return split_heads(stored.to_dense(), self.heads)

    def values(self, stored: Format) -> Tensor:
        return split_heads(stored.to_dense(), self.heads)

    def scores(self, query: Tensor, stored: Format, turn: Turn | None) -> Tensor:
        if turn is None:
            return scores(query, stored)
        return super().scores(query, stored, turn)

    def mix(self, weights: Tensor, stored: Format) -> Tensor:
        return mix(weights, stored, stored.shape[-1] // self.heads)


def _share_rows(rows: list[Tensor], rank: int) -> list[Format]:
    """Rows (batch, 1, tokens, n) of several layers as multiples of common ones, or as they are where they are few."""
    if rows[0].shape[-2] < rank:
        return [Dense(x) for x in rows]
    together = torch.cat(rows, -1)
    wide = torch.promote_types(together.dtype, torch.float32)
    u, s, vh = truncated_svd(together.to(wide), min(rank, *together.shape[-2:]))
    left = (u * s.unsqueeze(-2)).to(together.dtype)
    parts = vh.to(together.dtype).split([x.shape[-1] for x in rows], -1)
    return [LowRank(left, part.contiguous()) for part in parts]


@method(
    "measure", papers=(PAPER,),
    example={
        "x": (4, 40, 6), "rank": 2, "range": (0, 1), "ordered": True,
        "invariant": ("scale", "sign", "rotation", "rows"),
    },
)  # fmt: skip
def token_alignment(x: Tensor, *, rank: int = 8) -> Tensor:
    """The agreement of the leading left singular vectors of several matrices: (layers, layers), from 0 to 1.

    ``x`` has shape (layers, tokens, channels): keys or values of neighbouring layers. An entry is
    ``‖U_iᵀ U_j‖² / rank`` for the leading ``rank`` singular vectors of layers i and j, the mean squared cosine
    between their subspaces: 1 where one basis of tokens serves both, rank / tokens where they are unrelated. Departs
    from the paper's centred kernel alignment, which weighs all directions by their energy. It stays the same whatever
    the scale of x, the order of the tokens and a rotation of the channels.

    >>> x = torch.randn(1, 40, 6, generator=torch.Generator().manual_seed(0))
    >>> token_alignment(torch.cat([x, -3 * x.flip(-1)]), rank=2).round(decimals=3).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    _check.finite("x", _check.dimensions("x", _check.floating("x", x), 3))
    _check.rank(rank, min(x.shape[-2:]), f"the smaller side of x of shape {tuple(x.shape)}")
    u, _, _ = truncated_svd(x, rank)
    return torch.einsum("itr,jts->ijrs", u, u).square().sum((-2, -1)) / rank
