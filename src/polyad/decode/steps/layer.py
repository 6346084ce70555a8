"""One decoder layer of the loop, with the buffers of its keys and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyad.decode.outline import Attention, LayerOutline, Mlp, OwnModules
from polyad.decode.steps.attend import attend_masked, attend_one
from polyad.decode.steps.heads import head_norms, swap_function
from polyad.decode.steps.held import attend_held
from polyad.decode.steps.norm import norm_function
from polyad.decode.steps.products import Arithmetic, joint_product, own_function

Table = tuple[Tensor, Tensor]


@dataclass
class Now:
    """The call that is made: ``tokens`` new ones of each of ``batch`` sequences, from number ``start`` on.

    ``tables`` are cosines and sines (batch or 1, tokens, heads or 1, width) by rotation; ``masks`` what is seen, by
    window, None where it is all that came before.
    """

    batch: int
    tokens: int
    start: int
    tables: Mapping[Any, Table]
    masks: Mapping[int | None, Tensor | None]


class LayerStep:
    """Runs one decoder layer on rows (batch * tokens, width)."""

    def __init__(self, layer: LayerOutline, arithmetic: Arithmetic) -> None:
        dtype = arithmetic.dtype
        self.attention = AttentionStep(layer.attention, arithmetic)
        self.mlp = mlp_function(layer.mlp, arithmetic)
        self.norm, self.attention_after, self.mlp_norm, self.mlp_after = (
            None if norm is None else norm_function(norm, dtype)
            for norm in (layer.norm, layer.attention_after, layer.mlp_norm, layer.mlp_after)
        )
        self.layer = layer
        self.attention_share = None if layer.attention_share == 1 else layer.attention_share
        self.mlp_share = None if layer.mlp_share == 1 else layer.mlp_share

    def __call__(self, h: Tensor, now: Now) -> Tensor:
        x = h if self.norm is None else self.norm(h)
        attended = self.attention(x, now)
        if self.attention_after is not None:
            attended = self.attention_after(attended)
        if self.attention_share is not None:
            attended = attended * self.attention_share
        middle = h + attended
        if not self.layer.shares_norm:
            x = h if self.layer.parallel else middle
            x = x if self.mlp_norm is None else self.mlp_norm(x)
        added = self.mlp(x)
        if self.mlp_after is not None:
            added = self.mlp_after(added)
        return middle + added if self.mlp_share is None else middle.add(added, alpha=self.mlp_share)


class AttentionStep:
    """Attention over buffers (batch, key heads, capacity, width) of keys and values.

    Where both are of one width and nothing is normalised, they lie in one buffer, keys first, and values are turned
    with them, by nothing: each call of torch that is saved counts.
    """

    def __init__(self, read: Attention, arithmetic: Arithmetic) -> None:
        self.read, self.dtype = read, arithmetic.dtype
        self.project = joint_product(read.projections, arithmetic)
        self.output = joint_product((read.output,), arithmetic)
        self.normalize = head_norms(read, self.dtype)
        self.joined = self.normalize is None and read.width == read.value_width and not read.grouped
        self.rotary = (
            None if read.rotary is None else (read.rotary.name, read.heads, read.key_heads if self.joined else 0)
        )
        self.turn = swap_function(read) if read.rotary is not None else None
        self.columns = (read.heads + read.key_heads) * read.width
        self.group = read.heads // read.key_heads
        self.both = self.keys = self.values = torch.empty(0)
        self.held: Any = None

    def hold_in(self, layer: Any) -> None:
        """Give keys and values to a layer of a cache of polyad's, and keep no buffers; None takes buffers again."""
        self.held = layer
        if layer is not None:
            self.both = self.keys = self.values = torch.empty(0)

    def allocate(self, batch: int, capacity: int, device: torch.device) -> None:
        """Make room for so many tokens of each of so many sequences."""
        heads, options = self.read.key_heads, {"dtype": self.dtype, "device": device}
        if self.joined:
            self.both = torch.zeros(batch, 2 * heads, capacity, self.read.width, **options)
            self.keys, self.values = self.both.narrow(1, 0, heads), self.both.narrow(1, heads, heads)
        else:
            self.keys = torch.zeros(batch, heads, capacity, self.read.width, **options)
            self.values = torch.zeros(batch, heads, capacity, self.read.value_width, **options)

    def __call__(self, x: Tensor, now: Now) -> Tensor:
        read, y = self.read, self.project(x)
        if self.joined:
            turned = y.view(now.batch, now.tokens, -1, read.width)
            if self.turn is not None:
                cos, sin = now.tables[self.rotary]
                turned = torch.addcmul(turned * cos, self.turn(turned), sin)
            both = turned.narrow(2, read.heads, 2 * read.key_heads).transpose(1, 2)
            if self.held is not None:
                keys, values = both.chunk(2, 1)
                return self._attend_held(turned, keys, values, now)
            self.both.narrow(2, now.start, now.tokens).copy_(both)
        else:
            turned, values = self._split(y, now)
            turned = self._turn(turned, now)
            keys = turned.narrow(2, read.heads, read.key_heads)
            if self.held is not None:
                return self._attend_held(turned, keys.transpose(1, 2), values.transpose(1, 2), now)
            self.keys.narrow(2, now.start, now.tokens).copy_(keys.transpose(1, 2))
            self.values.narrow(2, now.start, now.tokens).copy_(values.transpose(1, 2))
        return self.output(self._attend(turned.narrow(2, 0, read.heads), now))

    def _turn(self, x: Tensor, now: Now) -> Tensor:
        """Queries and keys (batch, tokens, heads + key heads, width), normalised and rotated."""
        if self.normalize is not None and not self.read.norms_last:
            x = self.normalize(x)
        if self.turn is not None:
            cos, sin = now.tables[self.rotary]
            x = torch.addcmul(x * cos, self.turn(x), sin)
        return self.normalize(x) if self.normalize is not None and self.read.norms_last else x

    def _split(self, y: Tensor, now: Now) -> tuple[Tensor, Tensor]:
        """Queries and keys (batch, tokens, heads + key heads, width), and values."""
        read = self.read
        if not read.grouped:
            both = y.narrow(1, 0, self.columns).view(now.batch, now.tokens, -1, read.width)
            values = y.narrow(1, self.columns, y.shape[1] - self.columns)
            return both, values.view(now.batch, now.tokens, read.key_heads, read.value_width)
        y = y.view(now.batch, now.tokens, read.key_heads, self.group + 2, read.width)
        queries = y.narrow(3, 0, self.group).flatten(2, 3)
        return torch.cat((queries, y.select(3, self.group)), 2), y.select(3, self.group + 1)

    def _attend_held(self, turned: Tensor, keys: Tensor, values: Tensor, now: Now) -> Tensor:
        queries = turned.narrow(2, 0, self.read.heads).transpose(1, 2)
        out = attend_held(self.held, self.read, queries, keys, values, now.masks[self.read.window])
        return self.output(out.reshape(now.batch * now.tokens, -1))

    def _attend(self, queries: Tensor, now: Now) -> Tensor:
        read, end = self.read, now.start + now.tokens
        mask = now.masks[read.window]
        if now.tokens == 1:
            first = 0 if read.window is None else max(0, end - read.window)
            keys, values = self.keys.narrow(2, first, end - first), self.values.narrow(2, first, end - first)
            mask = None if mask is None else mask[..., first:]
            q = queries.view(now.batch, read.key_heads, self.group, read.width)
            return attend_one(q, keys, values, read.scale, read.softcap, mask).reshape(now.batch, -1)
        keys, values = self.keys.narrow(2, 0, end), self.values.narrow(2, 0, end)
        out = attend_masked(queries.transpose(1, 2), keys, values, read.scale, read.softcap, mask)
        return out.transpose(1, 2).reshape(now.batch * now.tokens, -1)


def mlp_function(mlp: Mlp | OwnModules, arithmetic: Arithmetic) -> Callable[[Tensor], Tensor]:
    """The MLP of rows (rows, width)."""
    if isinstance(mlp, OwnModules):
        return own_function(mlp, arithmetic)
    up, down, act = joint_product(mlp.ups, arithmetic), joint_product((mlp.down,), arithmetic), mlp.act
    if len(mlp.ups) == 1 and mlp.halves is None:
        return lambda x: down(act(up(x)))
    swapped = mlp.halves == 1

    def gated(x: Tensor) -> Tensor:
        first, second = up(x).chunk(2, -1)
        return down(act(second) * first if swapped else act(first) * second)

    return gated
