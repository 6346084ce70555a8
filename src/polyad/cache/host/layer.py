"""One layer of a cache: recent tokens as they are, older ones as a codec stores them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer

from polyad.cache.codec import Codec
from polyad.cache.host.attention import CHUNK, FEW, dense, over_pieces
from polyad.cache.host.exact_tokens import Recent
from polyad.cache.host.fused_rows import fuse_rows
from polyad.cache.host.rotation import Rotation
from polyad.cache.host.stored_blocks import Stored


class HeldLayer(DynamicLayer):
    """Holds one layer's tokens; ``update`` gives itself in the place of keys and values, and attention calls it back.

    Where a model makes other keys of the cache's own before it attends (``direct`` is False), ``update`` restores
    them. Attention sees the tokens of the current call as they are. After it, what has left the window is encoded,
    in multiples of the codec's block. ``neighbours`` are the layers that share the codec, this one among them; the
    last of them encodes for all.
    """

    def __init__(
        self,
        codec: Codec | None,
        window: int,
        rotation: Rotation | None,
        sinks: int = 0,
        held_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.codec, self.window, self.sinks, self.held_dtype = codec, window, sinks, held_dtype
        self.first = Recent()
        self.rotation = rotation if codec is not None and codec.before_rotation else None
        self.recent, self.stored = Recent(), Stored(1 if codec is None else codec.block)
        self.neighbours: Sequence[HeldLayer] = (self,)
        self.remembers, self.direct = False, True
        self._query: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Any]:  # noqa: ARG002
        """Append the new tokens."""
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        self.recent.append(key_states, value_states, self.held_dtype)
        if self.direct:
            return self, self
        restored = self.read()
        self._settle(key_states[..., :0, :])
        return restored

    def attend(self, module: nn.Module, query: Tensor, mask: Tensor | None, before: Any, more: Any) -> Tensor:
        """Attention of queries (batch, heads, tokens, channels); (batch, tokens, heads, channels)."""
        plain = before.__name__ == "sdpa_attention_forward" and not more.get("dropout")
        if self.stored.length and query.shape[-2] <= FEW and plain and more.get("position_bias") is None:
            out = self._over_stored(query, mask, more["scaling"])
        else:
            out = dense(module, query, *self.read(), mask, before, more)
        self._settle(query)
        return out

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens, restored."""
        exact = [part.read() for part in (self.first, self.recent) if part.length or part is self.recent]
        if not self.stored.length and len(exact) == 1:
            return exact[0][0].to(self.dtype), exact[0][1].to(self.dtype)
        pieces = exact[:-1]
        for first, keys, values in self.stored.read():
            assert self.codec is not None
            pieces.append((self._rotate_keys(self.codec.keys(keys), first), self.codec.values(values)))
        pieces.append(exact[-1])
        keys, values = (torch.cat([piece.to(self.dtype) for piece in side], -2) for side in zip(*pieces, strict=True))
        return keys, values

    def _over_stored(self, query: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
        assert self.codec is not None
        pieces: list[Any] = [_exact(self.first)] if self.first.length else []
        for first, keys, values in self.stored.read(CHUNK):
            turn = None if self.rotation is None else partial(self._turned_from, first)
            score = partial(self.codec.scores, stored=keys, turn=turn)
            pieces.append((score, partial(self.codec.mix, stored=values)))
        pieces.append(_exact(self.recent))
        batch, heads = self.recent.read(0)[0].shape[:2]
        return over_pieces(query.reshape(batch, heads, -1, *query.shape[2:]), mask, scaling, pieces)

    def _rotate_keys(self, keys: Tensor, start: int) -> Tensor:
        return keys if self.rotation is None else self.rotation.turn(keys, self.first.length + start)

    def _turned_from(self, start: int, keys: Tensor, at: int = 0) -> Tensor:
        return self._rotate_keys(keys, start + at)

    def _settle(self, query: Tensor) -> None:
        """Encode what has left the window, once all layers that share the codec are here."""
        if self.codec is not None or self.remembers:
            self._query = query
        if self.codec is None or self is not self.neighbours[-1]:
            return
        for layer in self.neighbours:
            layer._keep_sinks()
        count = max(0, self.recent.length - self.window) // self.codec.block * self.codec.block
        if count:
            entries, queries = zip(*(layer._leaving_tokens(count) for layer in self.neighbours), strict=True)
            pairs = self.codec.encode_layers(entries, queries)
            for layer, (keys, values) in zip(self.neighbours, pairs, strict=True):
                layer.stored.append(fuse_rows(keys), fuse_rows(values))
                layer.recent.drop(count)
        for layer in self.neighbours:
            layer._query = None

    def _keep_sinks(self) -> None:
        """Set the first tokens of the sequence apart when they leave the window."""
        count = min(self.sinks - self.first.length, self.recent.length - self.window)
        if count > 0 and not self.stored.length:
            self.first.append(*self.recent.read(count))
            self.recent.drop(count)

    def _leaving_tokens(self, count: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        keys, values = (t.to(self.dtype) for t in self.recent.read(count))
        assert self._query is not None
        if self.rotation is None:
            return (keys, values), self._query
        latest = self.get_seq_length() - self._query.shape[-2]
        return (self.rotation.undo(keys, self.first.length + self.stored.length), values), self.rotation.undo(
            self._query, latest
        )

    def adopt(self, other: HeldLayer) -> None:
        """Hold the tokens of a layer that keeps them exact and remembers its last queries, and encode them."""
        keys, values = other.recent.read()
        assert other._query is not None
        self.update(keys, values)
        self._settle(other._query)

    def get_seq_length(self) -> int:
        return self.first.length + self.stored.length + self.recent.length

    def crop(self, tokens_to_remove: int) -> None:
        """Drop the last ``-tokens_to_remove`` tokens. A stored block that is cut goes on as exact tokens, with the
        error that it had."""
        if tokens_to_remove > 0:
            raise ValueError(f"tokens_to_remove={tokens_to_remove} is positive; give minus the number to drop")
        length = max(0, self.get_seq_length() + tokens_to_remove)
        first = self.first.length
        if length >= first + self.stored.length:
            self.recent.crop(length - first - self.stored.length)
            return
        whole = self.stored.floor(max(0, length - first))
        start = min(first + whole, length)
        dtype = self.recent.read()[0].dtype
        keys, values = (x[..., start:length, :].to(dtype, copy=True) for x in self.read())
        self.first.crop(min(first, length))
        self.stored.crop(whole)
        self.recent.replace(keys, values)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.get_seq_length():
            batch = self.recent.read()[0].shape[0]
            self.batch_select_indices(torch.arange(batch, device=self.device).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        index = torch.as_tensor(indices, device=self.device if self.is_initialized else None)
        self.first.select(index)
        self.recent.select(index)
        if self is not self.neighbours[-1]:
            return
        done: dict[int, tuple[Tensor, Tensor]] = {}
        for layer in self.neighbours:  # all at once, so that what they share stays one
            layer.stored.select(index, done)
        if self.codec is not None:
            self.codec.select(index)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    @property
    def state(self) -> tuple[Tensor, ...]:
        """Tensors that are remembered of the sequences besides their tokens; their bytes count."""
        return () if self.codec is None else self.codec.state

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(Tensor, name):
            raise ValueError(
                f"a model asks polyad's cache for {name!r} as it would ask a tensor of keys; call "
                "polyad.cache.cache_for(model) for each model that is to read the cache"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def offload(self) -> None:
        raise NotImplementedError("these layers cannot be offloaded; make the cache without offloading=True")


def _exact(part: Recent) -> tuple[Any, Any]:
    """Scores and output of tokens that are held as they came."""
    keys, values = part.read()
    return lambda q: q @ keys.to(q.dtype).mT, lambda p: p @ values.to(p.dtype)
