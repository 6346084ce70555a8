"""The rotations that a model gives its keys, so that keys can be stored without them."""

from __future__ import annotations

import inspect
import sys
import weakref
from typing import Any

import torch
from torch import Tensor, nn


class Rotation:
    """Cosines and sines by position, as the model itself computed them, and the positions of a cache's tokens.

    The table is the model's and grows with the positions seen; ``positions`` (batch, tokens), or (1, tokens) where
    all rows agree, is the sequence's. ``turn`` and ``undo`` use the model's own rotation, so that halves,
    neighbouring pairs and rotations of a part of the channels are all served.
    """

    def __init__(self, attention: nn.Module) -> None:
        modeling = sys.modules[type(attention).__module__]
        self._apply = getattr(modeling, "apply_rotary_pos_emb", None)
        if self._apply is None or list(inspect.signature(self._apply).parameters)[:4] != ["q", "k", "cos", "sin"]:
            raise ValueError(
                f"{type(attention).__name__} does not rotate its keys in the usual way; choose a codec that stores "
                "keys as they are, such as kivi"
            )
        self._table: tuple[Tensor, Tensor] | None = None
        self.positions: Tensor | None = None
        owner = weakref.ref(self)

        def see(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
            rotation = owner()
            cache = kwargs.get("past_key_values")
            if rotation is not None and getattr(cache, "rotation", None) is rotation:
                rotation.see(kwargs.get("position_ids"), kwargs.get("position_embeddings"))

        handle = attention.register_forward_pre_hook(see, with_kwargs=True)
        weakref.finalize(self, handle.remove)

    def see(self, positions: Tensor | None, embeddings: tuple[Tensor, Tensor] | None) -> None:
        """Note the positions (batch, tokens) of the call that begins, and its cosines and sines."""
        if positions is None or embeddings is None or positions.ndim != 2:
            raise ValueError(
                "the model calls its attention without position_ids and position_embeddings, so that keys cannot be "
                "stored before their rotation; choose a codec that stores them as they are, such as kivi"
            )
        cos, sin = (t.expand(positions.shape[0], -1, -1) for t in embeddings)
        known = int(positions.max()) + 1
        if self._table is None or known > self._table[0].shape[0]:
            room = known + known // 8 + 64
            grown = [cos.new_zeros(room, cos.shape[-1]) for _ in range(2)]
            for new, old in zip(grown, self._table or (), strict=False):
                new[: old.shape[0]] = old
            self._table = grown[0], grown[1]
        for table, given in zip(self._table, (cos, sin), strict=True):
            table[positions] = given.to(table.dtype)
        if positions.shape[0] > 1 and bool((positions == positions[:1]).all()) and self._shared():
            positions = positions[:1]
        if self.positions is not None:
            rows = max(self.positions.shape[0], positions.shape[0])
            positions = torch.cat([p.expand(rows, -1) for p in (self.positions, positions.int())], 1)
        self.positions = positions.int()

    def _shared(self) -> bool:
        return self.positions is None or self.positions.shape[0] == 1

    def turn(self, keys: Tensor, start: int) -> Tensor:
        """Rotate keys (batch, heads, tokens, channels) of the tokens from number ``start`` on."""
        cos, sin = self._at(start, keys)
        return self._rotated(keys, cos, sin)

    def undo(self, keys: Tensor, start: int) -> Tensor:
        """Take the rotation away, also where a rounded cosine and sine do not lie on the circle."""
        cos, sin = self._at(start, keys)
        length = cos.square() + sin.square()
        return self._rotated(keys, cos / length, -sin / length)

    def _at(self, start: int, keys: Tensor) -> tuple[Tensor, Tensor]:
        assert self._table is not None
        assert self.positions is not None
        index = self.positions[:, start : start + keys.shape[-2]].long()
        wide = torch.promote_types(keys.dtype, torch.float32)
        return self._table[0][index].to(wide), self._table[1][index].to(wide)

    def _rotated(self, keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        assert self._apply is not None
        width = min(cos.shape[-1], keys.shape[-1])
        part = keys[..., :width].to(cos.dtype)
        _, turned = self._apply(part[:, :1], part, cos, sin)
        turned = turned.to(keys.dtype)
        return turned if width == keys.shape[-1] else torch.cat([turned, keys[..., width:]], -1)

    def adopt(self, other: Rotation) -> None:
        """Know the positions that another of the same model knows."""
        self._table, self.positions = other._table, other.positions

    def crop(self, length: int) -> None:
        if self.positions is not None:
            self.positions = self.positions[:, :length]

    def select(self, index: Tensor) -> None:
        if self.positions is not None and self.positions.shape[0] > 1:
            self.positions = self.positions[index]

    @property
    def nbytes(self) -> int:
        """Bytes of the sequence's positions."""
        return 0 if self.positions is None else self.positions.numel() * self.positions.element_size()

    @property
    def shared_nbytes(self) -> int:
        """Bytes of the model's table."""
        return sum(t.numel() * t.element_size() for t in self._table or ())
