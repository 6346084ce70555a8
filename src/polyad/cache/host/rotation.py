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
        self._origin: int | None = None
        """The first position, where all tokens of all rows follow it one by one."""
        self._even = True
        """True while cosines and sines are the same in both halves."""
        self._halves: bool | None = None
        """True if the model rotates the first half of the channels with the second; None before it is known."""
        owner = weakref.ref(self)

        def see(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
            rotation = owner()
            cache = kwargs.get("past_key_values", kwargs.get("layer_past"))  # as older models call it
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
        half = cos.shape[-1] // 2
        self._even &= all(torch.equal(t[..., :half], t[..., half:]) for t in (cos, sin))
        count = int(positions.max()) + 1
        if self._table is None or count > self._table[0].shape[0]:
            room = count + count // 8 + 64
            grown = [cos.new_zeros(room, cos.shape[-1]) for _ in range(2)]
            for new, old in zip(grown, self._table or (), strict=False):
                new[: old.shape[0]] = old
            self._table = grown[0], grown[1]
        for table, values in zip(self._table, (cos, sin), strict=True):
            table[positions] = values.to(table.dtype)
        if positions.shape[0] > 1 and bool((positions == positions[:1]).all()) and self._same_for_all():
            positions = positions[:1]
        self._follow(positions)
        if self.positions is not None:
            rows = max(self.positions.shape[0], positions.shape[0])
            positions = torch.cat([p.expand(rows, -1) for p in (self.positions, positions.int())], 1)
        self.positions = positions.int()

    def _follow(self, positions: Tensor) -> None:
        """Keep to slices of the table for as long as they serve."""
        first, count = int(positions[0, 0]), positions.shape[1]
        if self.positions is None:
            self._origin = first
        expected = first if self.positions is None else (self._origin or 0) + self.positions.shape[1]
        steps = torch.arange(expected, expected + count, device=positions.device)
        if positions.shape[0] > 1 or not bool((positions[0] == steps).all()):
            self._origin = None

    def _same_for_all(self) -> bool:
        return self.positions is None or self.positions.shape[0] == 1

    def turn(self, keys: Tensor, start: int) -> Tensor:
        """Rotate keys (batch, heads, tokens, channels) of the tokens from number ``start`` on."""
        cos, sin = self._at(start, keys)
        return self._rotate(keys, cos, sin)

    def undo(self, keys: Tensor, start: int) -> Tensor:
        """Take the rotation away, also where a rounded cosine and sine do not lie on the circle."""
        cos, sin = self._at(start, keys)
        length = cos.square() + sin.square()
        return self._rotate(keys, cos / length, -sin / length)

    def _at(self, start: int, keys: Tensor) -> tuple[Tensor, Tensor]:
        assert self._table is not None
        assert self.positions is not None
        count = keys.shape[-2]
        wide = torch.promote_types(keys.dtype, torch.float32)
        if self._origin is not None:
            first = self._origin + start
            return self._table[0][None, first : first + count].to(wide), self._table[1][
                None, first : first + count
            ].to(wide)
        index = self.positions[:, start : start + count].long()
        return self._table[0][index].to(wide), self._table[1][index].to(wide)

    def _rotate(self, keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        width = min(cos.shape[-1], keys.shape[-1])
        part = keys[..., :width].to(cos.dtype)
        if self._halves is None:
            self._halves = width % 2 == 0 and self._like_halves(width)
        quick = self._halves and self._even and cos.shape[-1] == width
        turned = (_by_halves(part, cos, sin) if quick else self._by_model(part, cos, sin)).to(keys.dtype)
        return turned if width == keys.shape[-1] else torch.cat([turned, keys[..., width:]], -1)

    def _by_model(self, keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        assert self._apply is not None
        return self._apply(keys[:, :1], keys, cos, sin)[1]

    def _like_halves(self, width: int) -> bool:
        """True if the model turns random keys as ``_by_halves`` does."""
        probe = torch.randn(1, 2, 3, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        angle = torch.randn(1, 3, width // 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        cos, sin = angle.cos().repeat(1, 1, 2), angle.sin().repeat(1, 1, 2)
        return torch.allclose(_by_halves(probe, cos, sin), self._by_model(probe, cos, sin), rtol=1e-12)

    def adopt(self, other: Rotation) -> None:
        """Know the positions that another of the same model knows."""
        self._table, self.positions, self._origin = other._table, other.positions, other._origin
        self._even = other._even

    def crop(self, length: int) -> None:
        if self.positions is not None:
            self.positions = self.positions[:, :length].clone()

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


def _by_halves(keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """``keys cos + (-second half, first half) sin`` with no copy of the halves."""
    half = keys.shape[-1] // 2
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    result = keys * cos
    result[..., :half].addcmul_(keys[..., half:], sin[..., :half], value=-1)
    result[..., half:].addcmul_(keys[..., :half], sin[..., half:])
    return result
