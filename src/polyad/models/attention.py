"""An attention module whose heads have other widths than the model's configuration says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from polyad._stated import check_stated
from polyad.models.decoder_attention import DecoderAttention, rotate
from polyad.models.described import register_kind


@register_kind
class ReducedAttention(DecoderAttention):
    """Grouped-query attention with narrower queries and keys, narrower values, and chosen rotation pairs.

    Takes the place of a decoder's attention module and is called as that is. ``pairs`` of shape
    (key heads, kept) says which rotation frequencies each head kept; None where all were. Queries and keys have
    2 * kept columns a head, values ``value_width``; scores are scaled as before the cut. Keys and values go into
    the cache at their reduced width.
    """

    pairs: Tensor | None
    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module

    def __init__(
        self,
        before: nn.Module,
        *,
        heads: int,
        key_heads: int,
        head_width: int,
        value_width: int,
        pairs: Tensor | None = None,
    ) -> None:
        scaling: Any = getattr(before, "scaling", head_width**-0.5)
        super().__init__(scaling=float(scaling), layer_idx=before.layer_idx)  # pyright: ignore[reportArgumentType]
        self.config: Any = before.config
        self.heads, self.key_heads, self.head_width = heads, key_heads, head_width
        self.value_width = value_width
        self.num_key_value_groups = heads // key_heads
        window = getattr(self.config, "sliding_window", None)  # of all layers, where the module has none of its own
        self.sliding_window = getattr(before, "sliding_window", window)
        self.attention_dropout = float(getattr(before, "attention_dropout", 0.0))  # pyright: ignore
        for role in ("q_proj", "k_proj", "v_proj", "o_proj"):
            self.add_module(role, before.get_submodule(role))
        self.register_buffer("pairs", pairs)

    def project(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, tokens, _ = hidden_states.shape
        q = self.q_proj(hidden_states).view(batch, tokens, self.heads, -1).transpose(1, 2)
        k = self.k_proj(hidden_states).view(batch, tokens, self.key_heads, -1).transpose(1, 2)
        v = self.v_proj(hidden_states).view(batch, tokens, self.key_heads, -1).transpose(1, 2)
        cos, sin = (self._at_pairs(table) for table in position_embeddings)
        spread = self.num_key_value_groups if cos.shape[1] > 1 else 1
        q = rotate(q, cos.repeat_interleave(spread, 1), sin.repeat_interleave(spread, 1))
        return q, rotate(k, cos, sin), v

    def attend(
        self, states: tuple[Any, ...], attention_mask: Tensor | None, others: dict[str, Any]
    ) -> tuple[Tensor, Tensor | None]:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
        from transformers.models.llama.modeling_llama import eager_attention_forward

        q, k, v = states
        function = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        others = {"dropout": self.attention_dropout if self.training else 0.0, "scaling": self.scaling, **others}
        if self.sliding_window is not None:
            others["sliding_window"] = self.sliding_window
        if q.shape[2] > 1 and isinstance(
            k, Tensor
        ):  # fused kernels want one width: with two they are five times slower
            width = max(q.shape[-1], v.shape[-1])
            q, k, v = (nn.functional.pad(x, (0, width - x.shape[-1])) for x in (q, k, v))
        out, weights = function(self, q, k, v, attention_mask, **others)
        return out[..., : self.value_width], weights

    def _at_pairs(self, table: Tensor) -> Tensor:
        """Cosines or sines (batch, tokens, width) at the kept pairs, (batch, key heads or 1, tokens, 2 kept)."""
        if self.pairs is None:
            return table.unsqueeze(1)
        both = torch.cat((self.pairs, self.pairs + self.head_width // 2), -1)  # (key heads, 2 kept)
        return table[..., both].transpose(1, 2)

    def refuse_misfit(self) -> None:
        """Refuse heads and widths that the projections do not have; for a module that was read from a folder."""
        rows = [int(getattr(self.get_submodule(f"{n}_proj"), "out_features", -1)) for n in "qkv"]
        heads, value = self.key_heads, self.key_heads * self.value_width
        fits = heads > 0 and self.heads > 0 and self.heads % heads == 0 and rows[1] % heads == 0 and rows[2] == value
        fits = fits and rows[0] == self.heads * (rows[1] // heads)
        if fits and self.pairs is not None:
            fits = tuple(self.pairs.shape) == (heads, rows[1] // heads // 2)
        if not fits:
            raise ValueError(
                f"an attention module of heads={self.heads}, key_heads={heads} and value_width={self.value_width} "
                f"cannot have projections to {rows} channels; copy the folder again"
            )

    def spec(self) -> dict[str, Any]:
        """JSON from which ``from_spec`` makes this module again, without its numbers."""
        return {
            "layer": "ReducedAttention",
            "heads": self.heads, "key_heads": self.key_heads,
            "head_width": self.head_width, "value_width": self.value_width,
            "pairs": None if self.pairs is None else list(self.pairs.shape),
        }  # fmt: skip

    @classmethod
    def from_spec(cls, spec: dict[str, Any], before: nn.Module) -> ReducedAttention:
        """An uninitialised module of this description, in place of ``before``; its projections are before's."""
        widths = {k: spec[k] for k in ("heads", "key_heads", "head_width", "value_width")}
        check_stated(widths, dict[str, int], "the description of an attention module", "copy the folder again")
        pairs = None if spec["pairs"] is None else torch.empty(spec["pairs"], dtype=torch.int64, device="meta")
        return cls(before, pairs=pairs, **widths)
