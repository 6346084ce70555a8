"""Quantised matrices in onnxruntime's layout, as formats that an exporter can trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad.formats.format import Format
from polyad.formats.stored.dense import convolve, dense_product
from polyad.formats.stored.quantized import middle, spread

BLOCKS = (256, 128, 64, 32, 16)
"""The lengths of blocks that MatMulNBits multiplies with, powers of two from 16."""
EXACT, ROUNDED = 1, 4
"""Values of ``accuracy_level``: the rows of x as they are, and rounded to 8 bits."""


@dataclass(frozen=True, eq=False, repr=False)
class BlockCodes(Format, abstract=True):
    """A quantised matrix as the operator MatMulNBits of onnxruntime reads it.

    ``packed`` (rows, blocks, bytes) holds codes of 2, 4 or 8 bits, least significant first, the last block filled up
    with zeros; ``scale`` and ``offset`` are (rows, blocks), ``zero`` holds the zero points of a row in whole bytes.
    ``offset`` is added to every number of a block, where a zero point is no code: the operator knows none such on
    8 bits, and is slow with them on 4.
    """

    exact: ClassVar[frozenset[str]] = frozenset({"scale"})

    packed: Tensor
    scale: Tensor
    zero: Tensor | None
    offset: Tensor | None
    bits: int
    columns: int
    block: int
    nominal: torch.dtype = torch.float32

    @property
    def shape(self) -> tuple[int, ...]:
        return self.packed.shape[0], self.columns

    @property
    def dtype(self) -> torch.dtype:
        return self.nominal

    def linear(self, x: Tensor) -> Tensor:
        parts = (self.packed, self.scale.to(x.dtype), *(() if self.zero is None else (self.zero,)))
        sizes = {"K": self.columns, "N": self.packed.shape[0], "bits": self.bits, "block_size": self.block}
        out = torch.onnx.ops.symbolic(
            "com.microsoft::MatMulNBits",
            (x, *parts),
            {**sizes, "accuracy_level": EXACT},
            dtype=x.dtype,
            shape=(*x.shape[:-1], self.packed.shape[0]),
            version=1,
        )
        if self.offset is None:
            return out
        filled = F.pad(x, (0, self.packed.shape[1] * self.block - self.columns))
        return out + dense_product(self.offset, filled.unflatten(-1, (-1, self.block)).sum(-1))

    def rows(self, index: Tensor) -> Tensor:
        parts = (None if t is None else t[index] for t in (self.packed, self.scale, self.zero, self.offset))
        return self._numbers(*parts)  # pyright: ignore[reportArgumentType]

    def to_dense(self) -> Tensor:
        return self._numbers(self.packed, self.scale, self.zero, self.offset)

    def convolve(self, x: Tensor, kernel: tuple[int, ...], **geometry: Any) -> Tensor:
        return convolve(x, self.to_dense(), kernel, **geometry)

    def _numbers(self, packed: Tensor, scale: Tensor, zero: Tensor | None, offset: Tensor | None) -> Tensor:
        """The numbers that stand for these rows of the parts, (…, columns)."""
        codes, scale = unpack_places(packed, self.bits), scale.float().unsqueeze(-1)
        if zero is None:
            centre: Tensor | float = middle(self.bits)
        else:
            centre = unpack_places(zero, self.bits)[..., : self.packed.shape[1]].unsqueeze(-1)
        numbers = (codes - centre) * scale
        if offset is not None:
            numbers = numbers + offset.float().unsqueeze(-1)
        return numbers.flatten(-2)[..., : self.columns].to(self.nominal)


@dataclass(frozen=True, eq=False, repr=False)
class PlainCodes(Format, abstract=True):
    """Codes that MatMulNBits does not know, by their blocks or their table: the engine restores them at its start.

    ``packed`` holds codes of 1, 2, 4 or 8 bits along the last dimension; ``scale`` is on the grid of blocks. What the
    codes stand for is less ``zero``, on that grid too, or is in the table ``levels``.
    """

    exact: ClassVar[frozenset[str]] = frozenset({"scale", "zero", "levels"})

    packed: Tensor
    scale: Tensor
    zero: Tensor | float
    levels: Tensor | None
    bits: int
    size: tuple[int, ...]
    block: tuple[int, ...]
    nominal: torch.dtype = torch.float32

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    @property
    def dtype(self) -> torch.dtype:
        return self.nominal

    def to_dense(self) -> Tensor:
        codes = unpack_places(self.packed, self.bits)[..., : self.size[-1]]
        zero = spread(self.zero.float(), self.block, self.size) if isinstance(self.zero, Tensor) else self.zero
        numbers = codes - zero if self.levels is None else self.levels.float()[codes.long()]
        return (numbers * spread(self.scale.float(), self.block, self.size)).to(self.nominal)

    def linear(self, x: Tensor) -> Tensor:
        return dense_product(self.to_dense(), x)

    def rows(self, index: Tensor) -> Tensor:
        return self.to_dense()[index]

    def combine(self, weights: Tensor) -> Tensor:
        return weights @ self.to_dense().to(weights.dtype)

    def convolve(self, x: Tensor, kernel: tuple[int, ...], **geometry: Any) -> Tensor:
        return convolve(x, self.to_dense(), kernel, **geometry)


def unpack_places(packed: Tensor, bits: int) -> Tensor:
    """The codes in bytes (…, n) as floats, (…, 8 n / bits).

    By divisions, since exporters and engines disagree on the types of constants beside bits.
    """
    rest, parts = packed.float(), list[Tensor]()
    for _ in range(8 // bits - 1):
        above = torch.floor(rest * 2.0**-bits)
        parts.append(rest - above * 2.0**bits)
        rest = above
    return torch.stack([*parts, rest], -1).flatten(-2) if parts else rest
