"""Keys and values in few coordinates, with or without their numbers rounded to few bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from polyad import _check
from polyad.cache.codec import Codec, Turn
from polyad.cache.codecs.coordinates import join_heads, joined_coordinates, mix, scores, split_heads
from polyad.formats import Dense, Format, LowRank, Product, Sum
from polyad.quantize import least_distortion, round_to_nearest

TILE = 512
"""Keys that are formed and rotated at once where attention needs them so: they stay in a processor's cache."""


@dataclass(frozen=True)
class Basis:
    """``x ≈ mean + (x - mean) into out`` for rows x of several heads side by side.

    ``into`` has shape (groups, s d, r) and ``out`` (groups, r, s d), for groups of s heads of d channels; ``mean``,
    if there is one, (groups, 1, s d). ``bits`` rounds the r coordinates to a grid of that many bits, by channel over
    ``group`` tokens or, with ``by_token``, by token over ``group`` coordinates; None keeps them. With one number for
    each coordinate, those of equal bits are rounded together. ``centred`` coordinates are spread about zero: they
    take the step of least distortion, in one byte, and no zero point.
    """

    into: Tensor
    out: Tensor
    bits: int | Sequence[int] | None = None
    group: int = 64
    by_token: bool = False
    mean: Tensor | None = None
    centred: bool = False
    parts: dict[torch.dtype, list[tuple[int | None, Tensor, Tensor]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """For each dtype, ``into`` and ``out`` by number of bits: made once, so that formats share them."""

    def __post_init__(self) -> None:
        if self.into.shape != self.out.mT.shape:
            raise ValueError(f"into of shape {tuple(self.into.shape)} does not fit out of {tuple(self.out.shape)}")
        for width in self.runs:
            _check.bits(width)

    @property
    def groups(self) -> int:
        return self.into.shape[0]

    @property
    def block(self) -> int:
        """Tokens that are rounded together."""
        return 1 if self.bits is None or self.by_token else self.group

    @property
    def runs(self) -> dict[int, list[int]]:
        """The coordinates of each number of bits."""
        if self.bits is None:
            return {}
        rank = self.into.shape[-1]
        widths = [self.bits] * rank if isinstance(self.bits, int) else list(self.bits)
        if len(widths) != rank:
            raise ValueError(f"bits={widths} must give a number for each of the {rank} coordinates")
        return {width: [i for i, each in enumerate(widths) if each == width] for width in sorted(set(widths))}

    def encode(self, x: Tensor) -> Format:
        """(batch, heads, tokens, d) as coordinates times ``out``, a format (batch, groups, tokens, s d)."""
        rows = join_heads(x, self.groups)
        rows = rows if self.mean is None else rows - self.mean.to(x.dtype)
        terms: list[Format] = []
        for bits, into, out in self._maps(x.dtype):
            latent, shared = rows @ into, out.expand(x.shape[0], *out.shape)
            if bits is None:
                return LowRank(latent, shared)
            terms.append(Product((self._round(latent, bits), Dense(shared))))
        return terms[0] if len(terms) == 1 else Sum(tuple(terms))

    def _maps(self, dtype: torch.dtype) -> list[tuple[int | None, Tensor, Tensor]]:
        if dtype not in self.parts:
            into, out = self.into.to(dtype), self.out.to(dtype)
            several = len(self.runs) > 1
            self.parts[dtype] = (
                [(bits, into[..., at].contiguous(), out[..., at, :].contiguous()) for bits, at in self.runs.items()]
                if several
                else [(next(iter(self.runs), None), into, out)]
            )
        return self.parts[dtype]

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that are stored."""
        maps = [t for parts in self.parts.values() for _, into, out in parts for t in (into, out)]
        return [self.into, self.out, *maps, *([] if self.mean is None else [self.mean])]

    def _round(self, latent: Tensor, bits: int) -> Format:
        block = self.group if self.by_token else (min(self.group, latent.shape[-2]), 1)
        if self.centred:
            return least_distortion(latent, bits, group=block, scale_dtype=torch.float8_e4m3fn)
        return round_to_nearest(latent, bits, group=block, zero_dtype=torch.float16)

    def dense(self, stored: Format, heads: int) -> Tensor:
        """The inverse of ``encode``, up to its error."""
        return split_heads(self.rows(*joined_coordinates(stored, stored.dtype)), heads)

    def rows(self, latent: Tensor, out: Tensor) -> Tensor:
        """The rows that these coordinates stand for, heads side by side."""
        x = latent @ out
        return x if self.mean is None else x.add_(self.mean.to(x.dtype))

    def scores(self, query: Tensor, stored: Format) -> Tensor:
        """``query xᵀ``, by way of the coordinates: (batch, heads, rows, tokens)."""
        products = scores(query, stored)
        return products if self.mean is None else products + query @ self._by_head(query).mT

    def mix(self, weights: Tensor, stored: Format, width: int) -> Tensor:
        """``weights x``, by way of the coordinates: (batch, heads, rows, d)."""
        sums = mix(weights, stored, width)
        return sums if self.mean is None else sums + weights.sum(-1, keepdim=True) * self._by_head(sums)

    def _by_head(self, like: Tensor) -> Tensor:
        assert self.mean is not None
        return self.mean.to(like.dtype).reshape(like.shape[1], 1, -1)


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
        latent, out = joined_coordinates(stored, query.dtype)
        step = max(1, TILE // latent.shape[0])
        tiles = []
        for at in range(0, latent.shape[-2], step):
            rows = self.key_basis.rows(latent[..., at : at + step, :], out)
            tiles.append(query @ turn(split_heads(rows, self.heads), at).mT)
        return torch.cat(tiles, -1)

    def mix(self, weights: Tensor, stored: Format) -> Tensor:
        return self.value_basis.mix(weights, stored, self._width)

    @property
    def bases(self) -> tuple[Tensor, ...]:
        return (*self.key_basis.tensors, *self.value_basis.tensors)


def leading_directions(moment: Tensor, rank: int) -> Tensor:
    """Orthonormal columns (groups, n, rank) along which rows with this second moment are largest."""
    return torch.linalg.eigh(moment.double()).eigenvectors[..., -rank:].flip(-1).to(moment.dtype)


def diagonal_blocks(moment: Tensor, groups: int) -> Tensor:
    """The blocks (groups, n, n) on the diagonal of a second moment of all heads side by side."""
    n = moment.shape[-1] // groups
    return torch.stack([moment[i * n : (i + 1) * n, i * n : (i + 1) * n] for i in range(groups)])
