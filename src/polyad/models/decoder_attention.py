"""The head of every attention module: the call that a decoder of transformers makes, and the rotation of pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


class DecoderAttention(nn.Module, ABC):
    """Attention that is called as a decoder of transformers calls its own.

    Hidden states are (batch, tokens, width), position embeddings cosines and sines (batch, tokens, table). The cache
    is one of transformers or of polyad. A kind of attention says in ``project`` what it caches and in ``attend`` how
    it attends to what the cache gives back; it has ``o_proj``, or an ``output`` of its own.
    """

    o_proj: nn.Module

    def __init__(self, *, scaling: float, layer_idx: int) -> None:
        super().__init__()
        self.scaling, self.layer_idx, self.is_causal = scaling, layer_idx, True

    @abstractmethod
    def project(self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor]) -> tuple[Any, ...]:
        """Queries, and the keys and values that are cached, each (batch, heads, tokens, channels); what else follows
        goes to ``attend``."""

    @abstractmethod
    def attend(
        self, states: tuple[Any, ...], attention_mask: Tensor | None, others: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        """The attention (batch, tokens, heads, channels) for what ``project`` gave, with keys and values as the cache
        gave them back, and its weights or None. ``others`` are the arguments of other attention modules."""

    def output(self, out: Tensor) -> Tensor:
        """The output (batch, tokens, width) of attention (batch, tokens, heads, channels)."""
        return self.o_proj(out.flatten(2))

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **others: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The output (batch, tokens, width), and the weights of attention where there are any."""
        query, key, value, *more = self.project(hidden_states, position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        out, weights = self.attend((query, key, value, *more), attention_mask, others)
        return self.output(out), weights


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (batch, heads, tokens, channels), number i together with number i + channels / 2."""
    first, second = x.chunk(2, -1)
    return x * cos.to(x.dtype) + torch.cat((-second, first), -1) * sin.to(x.dtype)
