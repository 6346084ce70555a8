"""The rotations that a model gives its keys, so that keys can be stored without them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from polyad.cache.host.model_rotation import ModelRotation


class Rotation:
    """Cosines and sines by position, as the model itself computed them, and the positions of a cache's tokens.

    One serves all layers that are given the same cosines and sines. The table is the model's and grows with the
    positions seen; ``positions`` (batch, tokens), or (1, tokens) where all rows agree, is the sequence's. Where a
    position's cosines differ from the table's, since the model scales its frequencies with the length of a call, the
    token has a row of its own among ``others``, and its position is minus one minus the number of that row. ``turn``
    and ``undo`` use the model's own rotation, so that halves, neighbouring pairs and rotations of a part of the
    channels are all served.
    """

    def __init__(self, attention: nn.Module) -> None:
        self._turn = ModelRotation(attention)
        self._table: Tensor | None = None
        """Cosines and sines side by side, a row for each position; a row is written once."""
        self._known: Tensor | None = None
        self.others: Tensor | None = None
        self.positions: Tensor | None = None
        self._origin: int | None = None
        """The first position, where all tokens of all rows follow it one by one."""
        self._even = True
        """True while cosines and sines are the same in both halves."""

    def see(self, positions: Tensor | None, embeddings: Any) -> None:
        """Note the positions (batch, tokens) of the call that begins, and its cosines and sines."""
        if not (isinstance(embeddings, tuple | list) and len(embeddings) == 2 and embeddings[0].ndim == 3):
            raise ValueError(
                "the model calls its attention without position_embeddings, so that keys cannot be stored before "
                "their rotation; choose a codec that stores them as they are, such as kivi"
            )
        cos, sin = embeddings
        half = cos.shape[-1] // 2
        self._even &= all(torch.equal(t[..., :half], t[..., half:]) for t in (cos, sin))
        if positions is None or positions.ndim != 2:  # any numbers do: rows that disagree with them stand apart
            first = 0 if self.positions is None else self.positions.shape[1]
            positions = torch.arange(first, first + cos.shape[1], device=cos.device)[None]
        rows = max(positions.shape[0], cos.shape[0])
        positions, values = positions.expand(rows, -1), torch.cat([cos, sin], -1).expand(rows, -1, -1)
        alike = bool((positions == positions[:1]).all()) and bool((values == values[:1]).all())
        if alike and (self.positions is None or self.positions.shape[0] == 1):
            positions, values = positions[:1], values[:1]
        places = self._file(positions.to(values.device), values)
        self._follow(places)
        if self.positions is not None:
            rows = max(self.positions.shape[0], places.shape[0])
            places = torch.cat([p.expand(rows, -1) for p in (self.positions, places)], 1)
        self.positions = places

    def _file(self, positions: Tensor, values: Tensor) -> Tensor:
        """The rows (batch, tokens) under which cosines and sines (batch, tokens, 2 width) are found again."""
        flat, rows = positions.flatten(), values.flatten(0, 1)
        table, written = self._grown(int(flat.max()) + 1, rows)
        fresh = flat[~written[flat]]
        if fresh.numel():
            table[fresh] = rows[~written[flat]]
            written[fresh] = True
        apart = (table[flat] != rows).any(-1)
        if bool(apart.any()):
            distinct, number = torch.unique(rows[apart], dim=0, return_inverse=True)
            before = rows[:0] if self.others is None else self.others
            flat = flat.clone()
            flat[apart] = -1 - (before.shape[0] + number)
            self.others = torch.cat([before, distinct])
        return flat.view(positions.shape).int()

    def _grown(self, count: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """The table and which of its rows are known, with room for so many positions."""
        if self._table is None or self._known is None or count > self._table.shape[0]:
            room = count + count // 8 + 64
            table, written = (
                like.new_zeros(room, like.shape[-1]),
                torch.zeros(room, dtype=torch.bool, device=like.device),
            )
            if self._table is not None and self._known is not None:
                table[: self._table.shape[0]], written[: self._known.shape[0]] = self._table, self._known
            self._table, self._known = table, written
        return self._table, self._known

    def _follow(self, places: Tensor) -> None:
        """Keep to slices of the table for as long as they serve."""
        first, count = int(places[0, 0]), places.shape[1]
        if self.positions is None:
            self._origin = first
        expected = first if self.positions is None else (self._origin or 0) + self.positions.shape[1]
        steps = torch.arange(expected, expected + count, device=places.device)
        if places.shape[0] > 1 or first < 0 or not bool((places[0] == steps).all()):
            self._origin = None

    def turn(self, keys: Tensor, start: int) -> Tensor:
        """Rotate keys (batch, heads, tokens, channels) of the tokens from number ``start`` on."""
        cos, sin = self._at(start, keys)
        return self._turn(keys, cos, sin, even=self._even)

    def undo(self, keys: Tensor, start: int) -> Tensor:
        """Take the rotation away, also where a rounded cosine and sine do not lie on the circle."""
        cos, sin = self._at(start, keys)
        length = cos.square() + sin.square()
        return self._turn(keys, cos / length, -sin / length, even=self._even)

    def _at(self, start: int, keys: Tensor) -> tuple[Tensor, Tensor]:
        stop = start + keys.shape[-2]
        if self._table is None or self.positions is None or self.positions.shape[1] < stop:
            raise ValueError(
                "this model has not told the cache the positions of its tokens, so that keys cannot be rotated; call "
                "polyad.cache.cache_for(model) for each model that is to read the cache"
            )
        if self._origin is not None:
            rows = self._table[None, self._origin + start : self._origin + stop]
        else:
            index, table = self.positions[:, start:stop].long(), self._table
            if self.others is not None:
                index = torch.where(index < 0, table.shape[0] - 1 - index, index)
                table = torch.cat([table, self.others])
            rows = table[index]
        cos, sin = rows.to(torch.promote_types(keys.dtype, torch.float32)).chunk(2, -1)
        return cos, sin

    def adopt(self, other: Rotation) -> None:
        """Know the positions that another of the same model knows."""
        self._table, self._known, self.others = other._table, other._known, other.others
        self.positions, self._origin, self._even = other.positions, other._origin, other._even

    def crop(self, length: int) -> None:
        if self.positions is not None:
            self.positions = self.positions[:, :length].clone()

    def select(self, index: Tensor) -> None:
        if self.positions is not None and self.positions.shape[0] > 1:
            self.positions = self.positions[index.to(self.positions.device)]

    def repeat(self, repeats: int) -> None:
        """Repeat each row of the batch so many times."""
        if self.positions is not None and self.positions.shape[0] > 1:
            self.positions = self.positions.repeat_interleave(repeats, 0)

    @property
    def nbytes(self) -> int:
        """Bytes of the sequence's positions, and of cosines and sines that are its own."""
        return sum(t.nbytes for t in (self.positions, self.others) if t is not None)

    @property
    def shared_nbytes(self) -> int:
        """Bytes of the model's table."""
        return sum(t.nbytes for t in (self._table, self._known) if t is not None)
