"""Multi-head latent attention: the cache holds one narrow vector a token for all heads, and a small rotary key."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyad._card import Paper, method
from polyad._stated import check_stated
from polyad.attention.module import Attend, AttentionModule, check_pairs
from polyad.attention.rotary import select_pairs
from polyad.cache.host.attention import FEW, over_pieces
from polyad.models.decoder_attention import rotate
from polyad.models.described import register_kind

DEEPSEEK = Paper(
    "DeepSeek-AI", 2024, "DeepSeek-V2: A Strong, Economical, and Efficient Mixture-of-Experts Language Model",
    "arXiv:2405.04434", adds="latents for keys and values, a decoupled rotary key, absorption of the up projections",
)  # fmt: skip


class StatedLatent(TypedDict):
    """A module as a folder describes it."""

    width: int
    heads: int
    rank: int
    nope: int
    rope: int
    value: int
    scaling: float
    query_bias: bool
    latent_bias: bool


@register_kind
@method(
    "layer",
    name="latent_attention",
    papers=(DEEPSEEK,),
    example={
        "width": 24, "heads": 4, "rank": 10, "nope": 4, "rope": 4, "value": 5,
        "x": (2, 30, 24), "table": 4, "parameters": 24 * 4 * 8 + 24 * 14 + 4 * 9 * 10 + 4 * 5 * 24, "held": 10 + 4,
    },
)  # fmt: skip
class LatentAttention(AttentionModule):
    """Attention of ``heads`` heads over a latent c of ``rank`` numbers a token and one rotary key for all heads.

    A head's score is ``q_nope · (K c) + q_rope · k_rope`` and its output ``V Σ p c``, with ``K`` (heads, nope, rank)
    and ``V`` (heads, value, rank) the up projections. ``key_up`` and ``value_up`` are absorbed into the query and the
    output where few tokens ask (decoding): nothing of the length of the context but latents is formed. The cache of
    transformers, or of polyad.cache, holds ``rope`` numbers a token as its keys and ``rank`` as its values.

    ``pairs`` (rope / 2,) says which of the model's rotation frequencies each pair of the rotary key turns with; pair
    i is numbers i and i + rope / 2. There is no norm on the latent and no latent for queries, unlike in the paper.

    Called as a decoder of transformers calls its attention: hidden states (batch, tokens, width), cosines and sines
    (batch, tokens, table), a mask that is boolean or added, or None for causal attention. Any floating dtype.

    >>> layer = LatentAttention(16, 4, rank=6, nope=4, rope=2, value=4)
    >>> table = torch.ones(1, 5, 2), torch.zeros(1, 5, 2)
    >>> layer(torch.ones(1, 5, 16), table)[0].shape
    torch.Size([1, 5, 16])
    """

    pairs: Tensor

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        rank: int,
        nope: int,
        rope: int,
        value: int,
        pairs: Tensor | None = None,
        scaling: float | None = None,
        query_bias: bool = False,
        latent_bias: bool = False,
        dropout: float = 0.0,
        layer_idx: int = 0,
        out: nn.Module | None = None,
    ) -> None:
        super().__init__(scaling=(nope + rope) ** -0.5 if scaling is None else scaling, layer_idx=layer_idx)
        check_pairs("rope", rope)
        if min(rank, heads, value) < 1 or nope < 0:
            raise ValueError(
                f"rank={rank}, heads={heads} and value={value} must be at least 1 and nope={nope} at least 0"
            )
        self.heads, self.rank, self.nope, self.rope, self.value = heads, rank, nope, rope, value
        self.key_heads, self.num_key_value_groups = 1, heads  # as a cache sees it
        self.attention_dropout = dropout
        self.q_proj = nn.Linear(width, heads * (nope + rope), bias=query_bias)
        self.kv_down = nn.Linear(width, rank + rope, bias=latent_bias)
        self.key_up = nn.Parameter(torch.randn(heads, nope, rank) * rank**-0.5)
        self.value_up = nn.Parameter(torch.randn(heads, value, rank) * rank**-0.5)
        self.o_proj = nn.Linear(heads * value, width, bias=False) if out is None else out
        self.register_buffer("pairs", torch.arange(rope // 2) if pairs is None else pairs)

    def project(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Attend]:
        """Rotated queries of all heads, and the rotated key and the latent that are cached."""
        nope, query, latent, key = self.projections(hidden_states, position_embeddings)
        over = self._over_latents if self._absorbs(nope.shape[-2]) else self._over_heads

        def attend(query: Tensor, keys: Tensor, latents: Tensor, mask: Tensor | None) -> Tensor:
            return over(nope, query[..., : self.rope], keys[..., : self.rope], latents[..., : self.rank], mask)

        return query, key, latent, attend

    def output(self, out: Tensor) -> Tensor:
        """The output (batch, tokens, width) of latents or of values, by head."""
        if self._absorbs(out.shape[1]):
            out = torch.einsum("bthr,hvr->bthv", out, self.value_up)
        return self.o_proj(out.flatten(2))

    def _absorbs(self, tokens: int) -> bool:
        """True where up projections are absorbed into queries and outputs."""
        return tokens <= FEW or self.value > self.rank

    def projections(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries without rotation (batch, heads, tokens, nope) and with it (…, rope), latents and rotated keys of
        one head, (batch, 1, tokens, rank) and (…, rope)."""
        q = self.q_proj(hidden_states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        nope, query = q.split((self.nope, self.rope), -1)
        latent, key = self.kv_down(hidden_states).unsqueeze(1).split((self.rank, self.rope), -1)
        cos, sin = (select_pairs(table, self.pairs) for table in position_embeddings)
        return nope, rotate(query, cos, sin), latent, rotate(key, cos, sin)

    def _over_latents(
        self, nope: Tensor, query: Tensor, keys: Tensor, latents: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Weighted sums of latents (batch, tokens, heads, rank); up projections are left to the caller."""
        wide = torch.cat((nope @ self.key_up, query), -1).unsqueeze(1)
        r = self.rank
        piece = (lambda q: q[..., :r] @ latents.mT + q[..., r:] @ keys.mT, lambda p: p @ latents)
        return over_pieces(wide, mask, self.scaling, [piece])

    def _over_heads(self, nope: Tensor, query: Tensor, keys: Tensor, latents: Tensor, mask: Tensor | None) -> Tensor:
        """Outputs of the heads (batch, tokens, heads, value), from keys and values that are formed."""
        every = keys.expand(-1, self.heads, -1, -1)
        q, k, v = (
            torch.cat((nope, query), -1),
            torch.cat((latents @ self.key_up.mT, every), -1),
            latents @ self.value_up.mT,
        )
        width = max(q.shape[-1], self.value)  # fused kernels want one width
        q, k, v = (F.pad(x, (0, width - x.shape[-1])) for x in (q, k, v))
        p = self.attention_dropout if self.training else 0.0
        causal = mask is None and q.shape[-2] > 1
        out = F.scaled_dot_product_attention(q, k, v, mask, p, is_causal=causal, scale=self.scaling)
        return out[..., : self.value].transpose(1, 2)

    def spec(self) -> dict[str, Any]:
        """JSON from which ``from_spec`` makes this module again, without its numbers."""
        return {
            "layer": "LatentAttention", "width": self.q_proj.in_features, "heads": self.heads, "rank": self.rank,
            "nope": self.nope, "rope": self.rope, "value": self.value, "scaling": self.scaling,
            "query_bias": self.q_proj.bias is not None, "latent_bias": self.kv_down.bias is not None,
        }  # fmt: skip

    @classmethod
    def from_spec(cls, spec: dict[str, Any], before: nn.Module) -> LatentAttention:
        """An uninitialised module of this description, in place of ``before``, whose output projection it has."""
        check_stated(spec, StatedLatent, "the description of a latent attention module", "copy the folder again")
        sizes = {name: value for name, value in spec.items() if name != "layer"}
        with torch.device("meta"):
            return cls(**sizes, **settings_of(before))


def settings_of(before: nn.Module) -> dict[str, Any]:
    """Arguments of a module that takes the place of ``before``: its output projection, index and dropout."""
    return {
        "out": before.get_submodule("o_proj"),
        "layer_idx": getattr(before, "layer_idx", 0),
        "dropout": float(getattr(before, "attention_dropout", 0.0)),  # pyright: ignore[reportArgumentType]
    }
