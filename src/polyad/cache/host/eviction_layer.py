"""A layer of a cache that stores some of the tokens that leave its window and lets the others go."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from polyad.cache.eviction import Eviction
from polyad.cache.host.layer import HeldLayer
from polyad.cache.host.rotation import Rotation

LOOK = 256
"""Queries whose attention weights are formed at once."""


class EvictingLayer(HeldLayer):
    """A ``HeldLayer`` whose codec chooses which of the tokens that leave are stored, head by head.

    Lengths, positions and masks are still those of all tokens seen: the mask's columns are gathered at the tokens
    that stayed. For codecs whose ``looks`` is not 0 the layer adds up the attention that tokens received, from the
    last ``looks`` queries of every call, while they are in the window.
    """

    def __init__(
        self,
        codec: Eviction,
        window: int,
        rotation: Rotation | None,
        sinks: int = 0,
        held_dtype: torch.dtype | None = None,
    ) -> None:
        if sinks:
            raise ValueError(f"sinks={sinks}: {codec!r} chooses itself which first tokens stay; leave sinks at 0")
        super().__init__(codec, window, rotation, 0, held_dtype)
        self.chooses = codec
        self.left = 0
        """Tokens that left the window, stored or not."""
        self.kept: Tensor | None = None
        """The numbers of those that are stored, (batch, heads, tokens), in their order."""
        self.received: Tensor | None = None
        """The attention that each token of the window received so far, (batch, heads, tokens); -1 for padding."""
        self.chosen: Tensor | None = None

    def attend(self, module: nn.Module, query: Tensor, mask: Tensor | None, before: Any, more: Any) -> Tensor:
        mask = self._at_kept(mask, query.shape[1])
        scaling = more.get("scaling")
        self.look(query, mask, query.shape[-1] ** -0.5 if scaling is None else scaling)
        return super().attend(module, query, mask, before, more)

    def look(self, query: Tensor, mask: Tensor | None, scaling: float) -> None:
        """Note the attention from the last queries, and which tokens are padding."""
        keys = self.read()[0] if self.chooses.looks else self.recent.read()[0]
        width = self.recent.length
        new = keys.new_zeros((*keys.shape[:2], width), dtype=torch.float32)
        if self.received is not None:
            new[..., : self.received.shape[-1]] = self.received
        if self.chooses.looks:
            new += _attention(query[..., -self.chooses.looks :, :], keys, mask, scaling)[..., -width:]
        if mask is not None:
            shown = _boolean(mask)[..., -1, -width:].unflatten(1, (keys.shape[1] if mask.shape[1] > 1 else 1, -1))
            new = new.masked_fill(~shown.any(2), -1)
        self.received = new

    def _at_kept(self, mask: Tensor | None, heads: int) -> Tensor | None:
        """The mask's columns (batch, heads, queries, tokens) of the tokens that are held."""
        if mask is None or self.kept is None:
            return mask
        batch, groups, _ = self.kept.shape
        wide = mask.expand(batch, heads, -1, -1)
        index = self.kept.long().repeat_interleave(heads // groups, 1).unsqueeze(2)
        stored = wide.gather(-1, index.expand(-1, -1, mask.shape[2], -1))
        return torch.cat([stored, wide[..., self.left : self.left + self.recent.length]], -1)

    def _leaving_tokens(self, count: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        (keys, values), queries = super()._leaving_tokens(count)
        others: list[Any] = list(self.neighbours)
        if self is others[0]:  # all layers that share the codec are chosen for together
            entries = [layer.recent.read(count) for layer in others]
            scores = [layer.received[..., :count] for layer in others]
            indices = self.chooses.choose(entries, scores, self.left, [layer.stored.length for layer in others])
            for layer, index in zip(others, indices, strict=True):
                layer.chosen = index
        assert self.chosen is not None
        assert self.received is not None
        index, self.chosen = self.chosen, None
        self.received = self.received[..., count:].clone()  # a view would hold what all received
        new = (index + self.left).int()
        self.kept = new if self.kept is None else torch.cat([self.kept, new], -1)
        self.left += count
        pick = index.unsqueeze(-1)
        return (
            keys.gather(2, pick.expand(-1, -1, -1, keys.shape[-1])),
            values.gather(2, pick.expand(-1, -1, -1, values.shape[-1])),
        ), queries

    def adopt(self, other: HeldLayer) -> None:
        keys, values = other.recent.read()
        assert other._query is not None
        self.update(keys, values)
        module = self.chooses.place.module
        self.look(other._query, None, float(getattr(module, "scaling", keys.shape[-1] ** -0.5)))  # pyright: ignore
        self._settle(other._query)

    def get_seq_length(self) -> int:
        return self.left + self.recent.length

    def crop(self, tokens_to_remove: int) -> None:
        length = max(0, self.get_seq_length() + tokens_to_remove)
        if tokens_to_remove > 0:
            super().crop(tokens_to_remove)  # which refuses it
        if length < self.left:
            raise ValueError(
                f"the first {self.left} tokens have left the window and some were let go, so that the cache cannot "
                f"be cropped to {length}; choose a larger window"
            )
        self.recent.crop(length - self.left)
        if self.received is not None:
            self.received = self.received[..., : length - self.left].clone()

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        index = indices.to(self.device) if self.is_initialized else indices
        self.kept = None if self.kept is None else self.kept[index]
        self.received = None if self.received is None else self.received[index]

    @property
    def state(self) -> tuple[Tensor, ...]:
        return (*super().state, *(t for t in (self.kept, self.received) if t is not None))


def _attention(query: Tensor, keys: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """The attention that each of the tokens (batch, key heads, tokens) receives from the last queries, added up."""
    total, tokens = keys.shape[-2], query.shape[-2]
    grouped = query.unflatten(1, (keys.shape[1], -1)) * scaling
    columns = torch.arange(total, device=keys.device)
    received = keys.new_zeros((*keys.shape[:2], total), dtype=torch.float32)
    for start in range(0, tokens, LOOK):
        rows = grouped[..., start : start + LOOK, :]
        scores = (rows @ keys.unsqueeze(2).mT.to(rows.dtype)).float()
        if mask is None:
            latest = total - tokens + start + torch.arange(rows.shape[-2], device=keys.device)
            shown = columns <= latest.unsqueeze(1)
        else:
            part = _boolean(mask)[..., mask.shape[2] - tokens + start :, :][..., : rows.shape[-2], :]
            shown = part.unsqueeze(1) if part.shape[1] == 1 else part.unflatten(1, (keys.shape[1], -1))
        weights = scores.masked_fill(~shown, -torch.inf).softmax(-1)
        received += weights.nan_to_num(0.0).sum((2, 3))  # rows of padding see nothing
    return received


def _boolean(mask: Tensor) -> Tensor:
    return mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
