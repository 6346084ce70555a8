"""A decoder that runs by plain calls of torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyad.cache.host.held_cache import HeldCache
from polyad.decode.outline import Attention, Outline
from polyad.decode.steps.attend import causal_mask
from polyad.decode.steps.held import announce_positions, refuse_cache
from polyad.decode.steps.layer import LayerStep, Now
from polyad.decode.steps.norm import norm_function
from polyad.decode.steps.products import Arithmetic, joint_product
from polyad.decode.structure.rotary import heads_of

ROOM = 64
"""Buffers are made for multiples of this many tokens."""


class BufferedDecoder:
    """Logits of the tokens of a batch, call after call, from buffers of keys and values."""

    def __init__(self, outline: Outline, dtype: torch.dtype, kernels: str = "auto") -> None:
        arithmetic = Arithmetic(dtype, outline.dtype, kernels)
        self.outline, self.dtype = outline, dtype
        self.layers = [LayerStep(layer, arithmetic) for layer in outline.layers]
        self.norm = None if outline.norm is None else norm_function(outline.norm, dtype)
        self.head = joint_product((outline.head,), arithmetic)
        self.positions = None if outline.positions is None else outline.positions.to(dtype)
        self.windows = {layer.attention.window for layer in outline.layers}
        self.length, self.room, self.batch = 0, 0, 0
        self.cache: HeldCache | None = None
        self._rotated = {x.attention.rotary: x.attention.read for x in self.layers if x.attention.rotary is not None}
        self._tables: dict[object, tuple[Tensor, Tensor]] = {}
        self._seen: Tensor | None = None
        self._places: Tensor | None = None

    def start(self, batch: int, capacity: int, mask: Tensor | None = None, cache: HeldCache | None = None) -> None:
        """Begin a batch of sequences that grow to ``capacity`` tokens.

        ``mask`` (batch, tokens) is zero at what pads the prompts on the left. A ``cache`` holds keys and values in
        the place of buffers.
        """
        self._hold_in(cache)
        self._refuse_beyond_positions(capacity if mask is None else capacity - int((mask == 0).sum(-1).min()))
        self.length = 0
        if batch != self.batch or capacity > self.room:
            self.batch, self.room = batch, -(-capacity // ROOM) * ROOM
            if cache is None:
                for layer in self.layers:
                    layer.attention.allocate(batch, self.room, self.outline.device)
            self._tables = self._make_tables()
        self._seen = self._places = None
        if mask is not None and not bool(mask.all()):
            self._seen = torch.ones(batch, self.room, dtype=torch.bool, device=self.outline.device)
            self._seen[:, : mask.shape[1]] = mask.bool()
            self._places = (self._seen.cumsum(-1) - 1).clamp_min(0)

    def _hold_in(self, cache: HeldCache | None) -> None:
        if cache is not None:
            refuse_cache(cache, self.outline)
        if cache is not None or self.cache is not None:
            self.batch = self.room = 0  # buffers, where there were any, are gone
            for layer, held in zip(self.layers, cache.layers if cache else [None] * len(self.layers), strict=True):
                layer.attention.hold_in(held)
        self.cache = cache

    def release(self) -> None:
        """Forget the cache that was given."""
        self._hold_in(None)

    def _refuse_beyond_positions(self, tokens: int) -> None:
        limit = self.outline.limit
        if limit is not None and tokens > limit:
            raise ValueError(
                f"prompt and max_new_tokens are {tokens} tokens together, and the model has learned {limit} "
                "positions; ask for fewer, or shorten the prompt"
            )

    def run(self, ids: Tensor, *, last: bool = True) -> Tensor:
        """Logits (batch, vocabulary) after the last of these tokens (batch, tokens), in float32.

        With ``last=False`` those after each of them, (batch, tokens, vocabulary).
        """
        batch, tokens = ids.shape
        now = self._now(batch, tokens)
        if self.cache is not None:
            announce_positions(self.cache, self.outline, self._positions_of(now), self.dtype)
        h = self._embed(ids, now)
        for layer in self.layers:
            h = layer(h, now)
        self.length += tokens
        if last and tokens > 1:
            h = h.view(batch, tokens, -1)[:, -1]
        h = h if self.norm is None else self.norm(h)
        logits = self.head(h).float()
        if self.outline.head_scale != 1:
            logits = logits * self.outline.head_scale
        if self.outline.softcap is not None:
            logits = torch.tanh(logits / self.outline.softcap) * self.outline.softcap
        return logits if last else logits.view(batch, tokens, -1)

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values of the tokens so far."""
        numbers = sum(
            read.key_heads * (read.width + read.value_width) for read in (x.attention.read for x in self.layers)
        )
        return self.batch * self.length * numbers * self.dtype.itemsize

    def _embed(self, ids: Tensor, now: Now) -> Tensor:
        outline: Any = self.outline
        h: Tensor = outline.embed(ids).to(self.dtype)
        if outline.scale != 1:
            h = h * outline.scale
        if self.positions is not None:
            end = now.start + now.tokens
            rows = slice(now.start, end) if self._places is None else self._places[:, now.start : end]
            h = h + self.positions[rows]
        return h.reshape(now.batch * now.tokens, -1)

    def _positions_of(self, now: Now) -> Tensor:
        """Positions (batch or 1, tokens) of the tokens of a call."""
        end = now.start + now.tokens
        if self._places is not None:
            return self._places[:, now.start : end]
        return torch.arange(now.start, end, device=self.outline.device)[None]

    def _now(self, batch: int, tokens: int) -> Now:
        start, end = self.length, self.length + tokens
        rows = slice(start, end) if self._places is None else self._places[:, start:end]
        pairs = {name: (cos[rows], sin[rows]) for name, (cos, sin) in self._tables.items()}
        tables = {place: _spread(pairs[place[0]], read, place[2]) for place, read in self._rotated.items()}
        return Now(batch, tokens, start, tables, {w: self._mask(w, tokens, end) for w in self.windows})

    def _mask(self, window: int | None, tokens: int, end: int) -> Tensor | None:
        """(batch or 1, 1, tokens, length): true where a token is seen; None where plainly all before it are."""
        if tokens == 1:
            return None if self._seen is None else self._seen[:, None, None, :end]
        if self._seen is None and tokens == end and (window is None or end <= window):
            return None
        mask = causal_mask(tokens, end, window, self.outline.device)[None, None]
        if self._seen is None:
            return mask
        if self.cache is not None:  # codecs store what pads with the rest: as transformers, which lets it see nothing
            return mask & self._seen[:, None, None, :end]
        itself = causal_mask(tokens, end, 1, self.outline.device)  # what pads sees itself, so that nothing is NaN
        return mask & self._seen[:, None, None, :end] | itself

    def _make_tables(self) -> dict[object, tuple[Tensor, Tensor]]:
        """Cosines and sines (room, 1 or heads + key heads, width) of every rotation."""
        positions = torch.arange(self.room, device=self.outline.device)
        tables: dict[object, tuple[Tensor, Tensor]] = {}
        for read in self._rotated.values():
            assert read.rotary is not None
            if read.rotary.name not in tables:
                cos, sin = (_by_head(t.to(self.dtype), read) for t in read.rotary.table(positions))
                tables[read.rotary.name] = cos, sin
        return tables


def _by_head(table: Tensor, read: Attention) -> Tensor:
    """(tokens, 1 or heads + key heads, width)."""
    if table.ndim == 2:
        return table.unsqueeze(1)
    return torch.cat((heads_of(table, read.heads), heads_of(table, read.key_heads)), 1)


def _spread(pair: tuple[Tensor, Tensor], read: Attention, values: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of queries and keys, and behind them those that turn values by nothing."""
    if not values:
        return pair
    cos, sin = pair
    shape = [*cos.shape[:-2], read.heads + read.key_heads, read.width]
    rest = [*cos.shape[:-2], values, read.width]
    still = cos.new_ones(rest), sin.new_zeros(rest)
    return torch.cat((cos.expand(shape), still[0]), -2), torch.cat((sin.expand(shape), still[1]), -2)
