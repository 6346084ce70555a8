"""The head of every attention module: the call that a decoder of transformers makes, and the checks of its sizes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from polyad.attention.rotary import causal

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(queries, keys, values, mask) to (batch, tokens, heads, channels); mask None is torch's own causal one, if any."""


class AttentionModule(nn.Module, ABC):
    """Attention that is called as a decoder of transformers calls its own.

    Hidden states are (batch, tokens, width), position embeddings cosines and sines (batch, tokens, table), and a mask
    is boolean or added, or None for causal attention. The cache is one of transformers or of polyad. A kind of
    attention has ``o_proj``, or an ``output`` of its own, and says in ``project`` what it caches and how it attends.
    """

    o_proj: nn.Module

    def __init__(self, *, scaling: float, layer_idx: int) -> None:
        super().__init__()
        self.scaling, self.layer_idx, self.is_causal = scaling, layer_idx, True

    @abstractmethod
    def project(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Attend]:
        """Queries, the keys and values that are cached, each (batch, heads, tokens, channels), and how to attend.

        A cache may widen what it hands to the last by zeros.
        """

    def output(self, out: Tensor) -> Tensor:
        """The output (batch, tokens, width) of what ``project``'s attention gave."""
        return self.o_proj(out.flatten(2))

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **others: Any,  # noqa: ARG002 - arguments of other attention modules
    ) -> tuple[Tensor, None]:
        """The output (batch, tokens, width); no weights of attention are given back."""
        query, key, value, attend = self.project(hidden_states, position_embeddings)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)

        def over(_module: Any, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, **_: Any) -> Any:
            return attend(query, keys, values, causal(mask, query, keys)), None

        if isinstance(key, Tensor):
            out = over(self, query, key, value, attention_mask)[0]
        else:  # a layer of polyad's caches
            out = key.attend(self, query, attention_mask, over, {"scaling": self.scaling})
        return self.output(out), None


def check_divides(name: str, value: int, whole_name: str, whole: int) -> None:
    """Refuse counts of heads that do not divide what they share."""
    if value < 1 or whole % value:
        raise ValueError(f"{name}={value} does not divide {whole_name}={whole}; choose a divisor of {whole}")


def check_pairs(name: str, value: int) -> None:
    """Refuse widths that do not consist of pairs, which positions rotate."""
    if value < 2 or value % 2:
        raise ValueError(f"{name}={value} must be even and at least 2: positions rotate its numbers in pairs")
