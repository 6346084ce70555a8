"""Codes that point into a table of numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor

from polyad.formats.format import Format
from polyad.formats.stored.dense import convolve, dense_product
from polyad.formats.stored.packing import pack, packed_length, unpack
from polyad.formats.stored.quantized import spread


@dataclass(frozen=True, eq=False, repr=False)
class Levels(Format):
    """``W = levels[code] * scale`` for codes of 1 to 8 bits into one table, packed along the last dimension.

    ``levels`` (2**bits,) need not be even; ``scale`` is one number for each block, on the grid of ``Quantized``.
    """

    codes: Tensor
    scale: Tensor
    levels: Tensor
    bits: int
    size: tuple[int, ...]
    block: tuple[int, ...]
    nominal: torch.dtype = torch.float32

    exact: ClassVar[frozenset[str]] = frozenset({"scale", "levels"})

    def __post_init__(self) -> None:
        grid = tuple(-(-n // b) for n, b in zip(self.size, self.block, strict=True))
        stored = (*self.size[:-1], packed_length(self.size[-1], self.bits))
        for name, shape in (("codes", stored), ("scale", grid)):
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"{name} of shape {tuple(getattr(self, name).shape)} is not {shape}")
        if self.levels.shape[-1:] != (2**self.bits,):
            raise ValueError(f"levels of shape {tuple(self.levels.shape)} are not those of {self.bits} bits")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    @property
    def dtype(self) -> torch.dtype:
        return self.nominal

    @property
    def parameters(self) -> int:
        return math.prod(self.size)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """The numbers that the codes stand for, computed and returned in ``dtype``."""
        codes = unpack(self.codes, self.bits, self.size[-1])
        return self.levels.to(dtype)[codes.int()] * spread(self.scale.to(dtype), self.block, self.size)

    def to_dense(self) -> Tensor:
        return self.dequantize(self.nominal)

    def linear(self, x: Tensor) -> Tensor:
        return dense_product(self.dequantize(x.dtype), x)

    def combine(self, weights: Tensor) -> Tensor:
        return weights @ self.dequantize(weights.dtype)

    def convolve(self, x: Tensor, kernel: tuple[int, ...], **geometry: Any) -> Tensor:
        return convolve(x, self.dequantize(x.dtype), kernel, **geometry)

    def transpose(self) -> Levels:
        codes = pack(unpack(self.codes, self.bits, self.size[-1]).mT, self.bits)
        size = (*self.size[:-2], self.size[-1], self.size[-2])
        block = (*self.block[:-2], self.block[-1], self.block[-2])
        return Levels(codes, self.scale.mT, self.levels, self.bits, size, block, self.nominal)

    def rows(self, index: Tensor) -> Tensor:
        flat = index.reshape(-1)
        codes, scale = unpack(self.codes[flat], self.bits, self.size[-1]), self.scale[flat // self.block[0]]
        scale = spread(scale.to(self.nominal), (1, self.block[-1]), (scale.shape[0], self.size[-1]))
        values = self.levels.to(self.nominal)[codes.int()] * scale
        return values.reshape(*index.shape, self.size[-1])

    def growth(self) -> dict[str, int] | None:
        return {"codes": 1, "scale": self.block[-2], "levels": 0} if self.ndim > 1 else None

    def with_rows(self, tensors: dict[str, Tensor], rows: int) -> Self:
        return replace(self, **tensors, size=(*tensors["codes"].shape[:-2], rows, self.size[-1]))

    def select(self, index: Tensor) -> Self:
        some = {"codes": self.codes[index], "scale": self.scale[index], "levels": self.levels}
        return self.with_rows(some, self.shape[-2])

    def flops(self, batch: int) -> int:
        return 2 * math.prod(self.size) * (batch + 1)

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        bits, block = 3, (*(1 for _ in shape[:-1]), 4)
        codes = torch.randint(0, 2**bits, shape, generator=generator, dtype=torch.uint8)
        grid = tuple(-(-n // b) for n, b in zip(shape, block, strict=True))
        levels = torch.randn(2**bits, generator=generator).sort().values
        scale = 0.1 + torch.rand(grid, generator=generator)
        return cls(pack(codes, bits), scale, levels, bits, tuple(shape), block, dtype)
