"""Attention modules that bring their own way of attending, and the checks of their sizes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor

from polyad.attention.rotary import causal
from polyad.models.decoder_attention import DecoderAttention

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(queries, keys, values, mask) to (batch, tokens, heads, channels); mask None is torch's own causal one, if any."""


class AttentionModule(DecoderAttention):
    """Attention that brings its own way of attending, in the place of a decoder's of transformers.

    A mask is boolean or added, or None for causal attention. A kind of attention says in ``project`` what it caches
    and how it attends; no weights of attention are given back.
    """

    @abstractmethod
    def project(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Attend]:
        """Queries, the keys and values that are cached, each (batch, heads, tokens, channels), and how to attend.

        A cache may widen what it hands to the last by zeros.
        """

    def attend(
        self,
        states: tuple[Any, ...],
        attention_mask: Tensor | None,
        others: dict[str, Any],  # noqa: ARG002 - arguments of other attention modules
    ) -> tuple[Tensor, None]:
        query, key, value, attend = states

        def over(_module: Any, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, **_: Any) -> Any:
            return attend(query, keys, values, causal(mask, query, keys)), None

        if isinstance(key, Tensor):
            return over(self, query, key, value, attention_mask)
        # a layer of polyad's caches
        return key.attend(self, query, attention_mask, over, {"scaling": self.scaling}), None


def check_divides(name: str, value: int, whole_name: str, whole: int) -> None:
    """Refuse counts of heads that do not divide what they share."""
    if value < 1 or whole % value:
        raise ValueError(f"{name}={value} does not divide {whole_name}={whole}; choose a divisor of {whole}")


def check_pairs(name: str, value: int) -> None:
    """Refuse widths that do not consist of pairs, which positions rotate."""
    if value < 2 or value % 2:
        raise ValueError(f"{name}={value} must be even and at least 2: positions rotate its numbers in pairs")
