"""A small decoder for any kind of attention: T6 with tensor products, and its rivals of equal size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyad.attention.methods.grouped import GroupedAttention
from polyad.attention.methods.latent import LatentAttention
from polyad.attention.methods.tensor_product import TensorProductAttention
from polyad.attention.rotary import tables

ATTENTIONS = ("tpa", "mha", "gqa", "mqa", "mla")
MakeAttention = Callable[[int], nn.Module]


class Layer(nn.Module):
    """Attention and SwiGLU, each behind a norm and added to the residual."""

    def __init__(self, width: int, hidden: int, attention: nn.Module) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.self_attn = attention
        self.gate_up, self.down = nn.Linear(width, 2 * hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor, positions: tuple[Tensor, Tensor], cache: Any) -> Tensor:
        """x of shape (batch, tokens, width)."""
        x = x + self.self_attn(self.attention_norm(x), positions, past_key_values=cache)[0]
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Decoder(nn.Module):
    """A causal decoder on token ids with one matrix for embedding and output; ``attention(i)`` makes its modules.

    >>> model = decoder("tpa", 20, width=16, layers=2, heads=2, hidden=24)
    >>> model(torch.ones(1, 5, dtype=torch.int64)).shape
    torch.Size([1, 5, 20])
    """

    def __init__(
        self, vocabulary: int, width: int, layers: int, hidden: int, table: int, attention: MakeAttention
    ) -> None:
        super().__init__()
        self.table = table
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(width, hidden, attention(i)) for i in range(layers))
        self.norm = nn.RMSNorm(width)

    def forward(self, ids: Tensor, past_key_values: Any = None) -> Tensor:
        """Logits (batch, tokens, vocabulary) of ids (batch, tokens) that follow what the cache holds."""
        x = self.embedding(ids)
        first = 0 if past_key_values is None else past_key_values.get_seq_length()
        cos, sin = tables(first, ids.shape[1], self.table)
        positions = cos.to(x), sin.to(x)
        for layer in self.layers:
            x = layer(x, positions, past_key_values)
        return F.linear(self.norm(x), self.embedding.weight)


def attention(kind: str, width: int, heads: int) -> MakeAttention:
    """A function that makes attention number i of this kind, with sizes as the papers choose them."""
    d = width // heads
    if kind == "tpa":
        return lambda i: TensorProductAttention(width, heads, d, layer_idx=i)
    if kind == "mla":
        rope = max(2, d // 4 * 2)
        pairs = torch.arange(rope // 2) * (d // rope)
        latent = partial(LatentAttention, width, heads, rank=2 * d, nope=d, rope=rope, value=d)
        return lambda i: latent(layer_idx=i, pairs=pairs.clone())
    shared = {"mha": heads, "gqa": next(n for n in (3, 2, 1) if heads % n == 0), "mqa": 1}
    if kind not in shared:
        raise ValueError(f"kind={kind!r} is not known; choose from {', '.join(ATTENTIONS)}")
    return lambda i: GroupedAttention(width, heads, d, key_heads=shared[kind], layer_idx=i)


def decoder(kind: str, vocabulary: int, *, width: int, layers: int, heads: int, hidden: int) -> Decoder:
    """A decoder with attention of this kind and as many parameters as one of multi-head attention and ``hidden``.

    The width of its SwiGLU makes up for what its attention has fewer or more, to within half a row of it. ``kind`` is
    tpa (with which the decoder is T6), mha, gqa, mqa or mla.
    """
    if width % heads or (width // heads) % 2:
        raise ValueError(f"width={width} must be heads={heads} times an even number")
    make = partial(Decoder, vocabulary, width, layers, table=width // heads)
    with torch.device("meta"):
        mine, theirs = (_size(attention(k, width, heads)(0)) for k in (kind, "mha"))
    wide = hidden + round((theirs - mine) / (3 * width))
    if wide < 1:
        raise ValueError(f"attention of kind {kind} alone has more parameters than hidden={hidden} allows")
    return make(hidden=wide, attention=attention(kind, width, heads))


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
