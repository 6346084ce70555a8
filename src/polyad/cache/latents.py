"""Keys and values in few coordinates, with or without their numbers rounded to few bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyad import _check
from polyad.cache.codec import Codec, Turn
from polyad.formats import Dense, Format, LowRank, Product
from polyad.quantize import round_to_nearest


@dataclass(frozen=True)
class Basis:
    """``x ≈ x into out`` for rows x of several heads side by side.

    ``into`` has shape (groups, s d, r) and ``out`` (groups, r, s d), for groups of s heads of d channels. ``bits``
    rounds the r coordinates to a grid of that many bits, by channel over ``group`` tokens or, with ``by_token``, by
    token over ``group`` coordinates; None keeps them.
    """

    into: Tensor
    out: Tensor
    bits: int | None = None
    group: int = 64
    by_token: bool = False

    def __post_init__(self) -> None:
        if self.bits is not None:
            _check.bits(self.bits)
        if self.into.shape != self.out.mT.shape:
            raise ValueError(f"into of shape {tuple(self.into.shape)} does not fit out of {tuple(self.out.shape)}")

    @property
    def groups(self) -> int:
        return self.into.shape[0]

    @property
    def block(self) -> int:
        """Tokens that are rounded together."""
        return 1 if self.bits is None or self.by_token else self.group

    def encode(self, x: Tensor) -> Format:
        """(batch, heads, tokens, d) as coordinates times ``out``, a format (batch, groups, tokens, s d)."""
        batch, _, tokens, _ = x.shape
        rows = x.unflatten(1, (self.groups, -1)).transpose(2, 3).flatten(3)
        latent = rows @ self.into.to(x.dtype)
        out = self.out.to(x.dtype).expand(batch, *self.out.shape)
        if self.bits is None:
            return LowRank(latent, out)
        block = self.group if self.by_token else (min(self.group, tokens), 1)
        return Product((round_to_nearest(latent, self.bits, group=block, zero_dtype=torch.float16), Dense(out)))

    def dense(self, stored: Format, heads: int) -> Tensor:
        """The inverse of ``encode``, up to its error."""
        return stored.to_dense().unflatten(-1, (heads // self.groups, -1)).transpose(2, 3).flatten(1, 2)

    def scores(self, query: Tensor, stored: Format) -> Tensor:
        """``query xᵀ``, by way of the coordinates: (batch, heads, rows, tokens)."""
        latent, out = self._parts(stored, query)
        inner = query.unflatten(1, (self.groups, -1)) @ out.unflatten(-1, (-1, query.shape[-1])).permute(0, 2, 3, 1)
        return latent.linear(inner.flatten(2, 3)).unflatten(2, inner.shape[2:4]).flatten(1, 2)

    def mix(self, weights: Tensor, stored: Format, width: int) -> Tensor:
        """``weights x``, by way of the coordinates: (batch, heads, rows, d)."""
        latent, out = self._parts(stored, weights)
        parted = weights.unflatten(1, (self.groups, -1))
        inner = latent.combine(parted.flatten(2, 3)).unflatten(2, parted.shape[2:4])
        return (inner @ out.unflatten(-1, (-1, width)).transpose(1, 2)).flatten(1, 2)

    def _parts(self, stored: Format, like: Tensor) -> tuple[Format, Tensor]:
        """What grows with the tokens, and ``out``."""
        latent = Dense(stored.left) if isinstance(stored, LowRank) else _first(stored)
        return latent, self.out.to(like.dtype)


class Latents(Codec):
    """Keys and values in the coordinates of two bases; a method says which."""

    def __init__(self, key_basis: Basis, value_basis: Basis, heads: int) -> None:
        self.key_basis, self.value_basis, self.heads = key_basis, value_basis, heads
        self.block = max(key_basis.block, value_basis.block)

    def encode(self, keys: Tensor, values: Tensor, queries: Tensor) -> tuple[Format, Format]:  # noqa: ARG002
        self._width = values.shape[-1]
        return self.key_basis.encode(keys), self.value_basis.encode(values)

    def keys(self, stored: Format) -> Tensor:
        return self.key_basis.dense(stored, self.heads)

    def values(self, stored: Format) -> Tensor:
        return self.value_basis.dense(stored, self.heads)

    def scores(self, query: Tensor, stored: Format, turn: Turn | None) -> Tensor:
        if turn is None:
            return self.key_basis.scores(query, stored)
        return super().scores(query, stored, turn)

    def mix(self, weights: Tensor, stored: Format) -> Tensor:
        return self.value_basis.mix(weights, stored, self._width)

    @property
    def bases(self) -> tuple[Tensor, ...]:
        both = (self.key_basis, self.value_basis)
        return tuple(t for basis in both for t in (basis.into, basis.out))


def _first(stored: Any) -> Format:
    return stored.factors[0]


def leading(moment: Tensor, rank: int) -> Tensor:
    """Orthonormal columns (groups, n, rank) along which rows with this second moment are largest."""
    return torch.linalg.eigh(moment.double()).eigenvectors[..., -rank:].flip(-1).to(moment.dtype)


def grouped(moment: Tensor, groups: int) -> Tensor:
    """The blocks (groups, n, n) on the diagonal of a second moment of all heads side by side."""
    n = moment.shape[-1] // groups
    return torch.stack([moment[i * n : (i + 1) * n, i * n : (i + 1) * n] for i in range(groups)])
