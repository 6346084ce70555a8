"""Attention whose queries, keys and values are sums of outer products that depend on the token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyad._card import Paper, method
from polyad.attention.module import Attend, AttentionModule, check_pairs
from polyad.cache.host.attention import FEW
from polyad.models.decoder_attention import rotate

TPA = Paper(
    "Zhang, Liu, Yuan, Qin, Yuan, Gu, Yao", 2025, "Tensor Product Attention Is All You Need", "arXiv:2501.06425",
    "tpa", "contextual factors of queries, keys and values, of which the cache holds two",
)  # fmt: skip


@method(
    "layer",
    name="tensor_product_attention",
    papers=(TPA,),
    example={
        "width": 24, "heads": 4, "head_width": 6, "rank_q": 3, "rank_k": 2, "rank_v": 2,
        "x": (2, 30, 24), "table": 6, "parameters": 24 * 7 * (4 + 6) + 24 * 24, "held": (2 + 2) * (4 + 6),
    },
)  # fmt: skip
class TensorProductAttention(AttentionModule):
    """A token's keys of all heads are ``1/R Σ_r a_r ⊗ b_r``, a of ``heads`` and b of ``head_width`` numbers.

    So are its queries and values; all factors are linear in the token. The rotation acts on the b of queries and
    keys and so on the whole, and the cache holds rotated factors: (rank_k + rank_v)(heads + head_width) numbers a
    token where multi-head attention holds 2 heads head_width. A few tokens (decoding) attend to the factors as they
    are, at 2 rank heads head_width operations a token of the context, and no keys or values are formed.

    Called as a decoder of transformers calls its attention; transformers' cache, or a layer of polyad's, sees rank_k
    "heads" of keys and rank_v of values, each a factor a followed by its b. Any floating dtype.

    >>> layer = TensorProductAttention(16, 4, 8, rank_q=3, rank_k=2, rank_v=2)
    >>> table = torch.ones(1, 5, 8), torch.zeros(1, 5, 8)
    >>> layer(torch.ones(1, 5, 16), table)[0].shape
    torch.Size([1, 5, 16])
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        *,
        rank_q: int = 6,
        rank_k: int = 2,
        rank_v: int = 2,
        layer_idx: int = 0,
    ) -> None:
        super().__init__(scaling=head_width**-0.5, layer_idx=layer_idx)
        check_pairs("head_width", head_width)
        if min(heads, rank_q, rank_k, rank_v) < 1:
            raise ValueError(f"heads={heads}, rank_q={rank_q}, rank_k={rank_k}, rank_v={rank_v} must be at least 1")
        self.heads, self.head_width, self.ranks = heads, head_width, (rank_q, rank_k, rank_v)
        self.factors = nn.Linear(width, sum(self.ranks) * (heads + head_width), bias=False)
        self.o_proj = nn.Linear(heads * head_width, width, bias=False)

    def project(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Attend]:
        """Queries of all heads, and the factors of keys and values that are cached."""
        factors = self.factors(hidden_states).unflatten(-1, (-1, self.heads + self.head_width)).transpose(1, 2)
        cos, sin = (table.unsqueeze(1) for table in position_embeddings)
        query, key, value = factors.split(self.ranks, 1)
        query, key = self._rotate_factors(query, cos, sin), self._rotate_factors(key, cos, sin)
        over = self._over_factors if hidden_states.shape[1] <= FEW else self._over_heads

        def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
            return over(query, keys, values, mask).transpose(1, 2)

        return self._form_heads(query), key, value, attend

    def _rotate_factors(self, factors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        a, b = factors.split((self.heads, self.head_width), -1)
        return torch.cat((a, rotate(b, cos, sin)), -1)

    def _form_heads(self, factors: Tensor) -> Tensor:
        """Queries, keys or values (batch, heads, tokens, channels) of factors (batch, rank, tokens, both)."""
        a, b = factors.split((self.heads, self.head_width), -1)
        return torch.einsum("brth,brtd->bhtd", a, b) / factors.shape[1]

    def _over_heads(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        k, v = self._form_heads(keys), self._form_heads(values)
        alone = mask is None and query.shape[-2] > 1
        query = query[..., : self.head_width]
        return F.scaled_dot_product_attention(query, k, v, mask, is_causal=alone, scale=self.scaling)

    def _over_factors(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        (a, b), (c, d) = (x.split((self.heads, self.head_width), -1) for x in (keys, values))
        shape = query.shape[1:3]
        rows = query[..., : self.head_width].flatten(1, 2).unsqueeze(1) * (self.scaling / a.shape[1])
        scores = ((rows @ b.mT).unflatten(2, shape) * a.mT.unsqueeze(3)).sum(1)  # (batch, heads, tokens, length)
        if mask is not None:
            least = torch.finfo(scores.dtype).min
            scores = scores.masked_fill(~mask, least) if mask.dtype == torch.bool else scores + mask
        weights = scores.softmax(-1).unsqueeze(1) * c.mT.unsqueeze(3)  # by rank
        return (weights.flatten(2, 3) @ d).sum(1).unflatten(1, shape) / c.shape[1]
