"""Multi-head, grouped-query and multi-query attention, the baseline of the others."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from polyad._card import Paper, method
from polyad.attention.module import Attend, AttentionModule, check_divides, check_pairs
from polyad.models.decoder_attention import rotate

GQA = Paper(
    "Ainslie, Lee-Thorp, de Jong, Zemlyanskiy, Lebrón, Sanghai", 2023,
    "GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints", "arXiv:2305.13245",
)  # fmt: skip


@method(
    "layer",
    name="grouped_attention",
    papers=(GQA,),
    example={
        "width": 24, "heads": 4, "head_width": 6, "key_heads": 2,
        "x": (2, 30, 24), "table": 6, "parameters": 3 * 24 * 24, "held": 2 * 2 * 6,
    },
)  # fmt: skip
class GroupedAttention(AttentionModule):
    """``heads`` query heads that share ``key_heads`` heads of keys and values: all of them, some, or one.

    Called as a decoder of transformers calls its attention; transformers' cache, or a layer of polyad's. Any floating
    dtype.

    >>> layer = GroupedAttention(16, 4, 8, key_heads=2)
    >>> table = torch.ones(1, 5, 8), torch.zeros(1, 5, 8)
    >>> layer(torch.ones(1, 5, 16), table)[0].shape
    torch.Size([1, 5, 16])
    """

    def __init__(self, width: int, heads: int, head_width: int, *, key_heads: int, layer_idx: int = 0) -> None:
        super().__init__(scaling=head_width**-0.5, layer_idx=layer_idx)
        check_divides("key_heads", key_heads, "heads", heads)
        check_pairs("head_width", head_width)
        self.key_heads, self.head_width = key_heads, head_width
        self.q_proj = nn.Linear(width, heads * head_width, bias=False)
        self.kv_proj = nn.Linear(width, 2 * key_heads * head_width, bias=False)
        self.o_proj = nn.Linear(heads * head_width, width, bias=False)

    def project(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Attend]:
        """Queries, keys and values of all heads, the first two rotated."""
        cos, sin = (table.unsqueeze(1) for table in position_embeddings)
        q = rotate(self.q_proj(hidden_states).unflatten(-1, (-1, self.head_width)).transpose(1, 2), cos, sin)
        both = self.kv_proj(hidden_states).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        k, v = both.split(self.key_heads, 1)
        return q, rotate(k, cos, sin), v, _attend


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention (batch, tokens, heads, channels)."""
    if mask is None and q.shape[-2] == 1:  # the heads of a group lie side by side, and read their keys once
        rows = q.reshape(*k.shape[:2], -1, q.shape[-1])
        return F.scaled_dot_product_attention(rows, k, v).reshape(q.shape).transpose(1, 2)
    alone = mask is None
    grouped = k.shape[1] != q.shape[1]
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=alone, enable_gqa=grouped).transpose(1, 2)
