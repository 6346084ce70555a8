"""Integer codes whose scales are integers too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor

from polyad.formats.format import Format
from polyad.formats.stored.packing import pack, packed_length, unpack
from polyad.formats.stored.quantized import Quantized, restore_values, spread


@dataclass(frozen=True, eq=False, repr=False)
class Superblocks(Format):
    """``W = code * scale - low``, where the scale and the low of a block are few bits times what many blocks share.

    ``codes`` of ``bits`` bits and ``block`` are those of ``Quantized``. ``steps`` holds a number of ``step_bits``
    bits for each block, packed along the last dimension of the grid of blocks, and the block's scale is that number
    times ``scale``, which blocks share as ``per`` says: (1, 8) for eight side by side. ``lows`` and ``low`` are the
    same for what is subtracted; where they are None, codes are centred on half their range. A block whose scale is
    zero holds zeros.
    """

    codes: Tensor
    steps: Tensor
    lows: Tensor | None
    scale: Tensor
    low: Tensor | None
    bits: int
    step_bits: int
    size: tuple[int, ...]
    block: tuple[int, ...]
    per: tuple[int, ...]
    nominal: torch.dtype = torch.float32

    exact: ClassVar[frozenset[str]] = frozenset({"scale", "low"})

    def __post_init__(self) -> None:
        grid = self.grid
        stored = (*grid[:-1], packed_length(grid[-1], self.step_bits))
        shared = tuple(-(-n // p) for n, p in zip(grid, self.per, strict=True))
        wanted = {"steps": stored, "lows": stored, "scale": shared, "low": shared}
        for name, shape in wanted.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"{name} of shape {tuple(value.shape)} is not {shape}, which the blocks need")
        if (self.lows is None) != (self.low is None):
            raise ValueError("lows and low belong together; give both or neither")

    @property
    def grid(self) -> tuple[int, ...]:
        """The number of blocks along each dimension."""
        return tuple(-(-n // b) for n, b in zip(self.size, self.block, strict=True))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    @property
    def dtype(self) -> torch.dtype:
        return self.nominal

    @property
    def parameters(self) -> int:
        return math.prod(self.size)

    def to_quantized(self) -> Quantized:
        """The same numbers with a scale and a zero point for each block."""
        scale, zero = self._grid(self.tensors())
        return Quantized(self.codes, scale, zero, self.bits, self.size, self.block, self.nominal)

    def _grid(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """The scale and the zero point of each block, of all rows or of some: those of ``tensors``."""
        wide = torch.promote_types(self.scale.dtype, torch.float32)

        def times(packed: str, shared: str) -> Tensor:
            numbers = self.block_numbers(tensors[packed]).to(wide)
            return numbers * spread(tensors[shared].to(wide), self.per, tuple(numbers.shape))

        scale = times("steps", "scale")
        if self.lows is None:
            return scale, None
        return scale, torch.where(scale == 0, 0, times("lows", "low")) / torch.where(scale == 0, 1, scale)

    def block_numbers(self, packed: Tensor) -> Tensor:
        """The number of each block, of ``steps`` or of ``lows``."""
        return unpack(packed, self.step_bits, self.grid[-1])

    def to_dense(self) -> Tensor:
        return self.to_quantized().to_dense()

    def linear(self, x: Tensor) -> Tensor:
        return self.to_quantized().linear(x)

    def convolve(self, x: Tensor, kernel: tuple[int, ...], **geometry: Any) -> Tensor:
        return self.to_quantized().convolve(x, kernel, **geometry)

    def combine(self, weights: Tensor) -> Tensor:
        return self.to_quantized().combine(weights)

    def transpose(self) -> Superblocks:
        def turn(packed: Tensor | None, bits: int, count: int) -> Tensor | None:
            return None if packed is None else pack(unpack(packed, bits, count).mT, bits)

        def swap(sizes: tuple[int, ...]) -> tuple[int, ...]:
            return (*sizes[:-2], sizes[-1], sizes[-2])

        codes, steps = turn(self.codes, self.bits, self.size[-1]), turn(self.steps, self.step_bits, self.grid[-1])
        assert codes is not None
        assert steps is not None
        return replace(
            self, codes=codes, steps=steps, lows=turn(self.lows, self.step_bits, self.grid[-1]),
            scale=self.scale.mT, low=None if self.low is None else self.low.mT,
            size=swap(self.size), block=swap(self.block), per=swap(self.per),
        )  # fmt: skip

    def rows(self, index: Tensor) -> Tensor:
        flat = index.reshape(-1)
        if self.block[0] > 1 or self.per[0] > 1:
            return self.to_quantized().rows(index)
        scale, zero = self._grid({name: t[flat] for name, t in self.tensors().items()})
        codes = unpack(self.codes[flat], self.bits, self.size[-1])
        values = restore_values(codes, scale, zero, self.bits, (1, self.block[-1]), self.nominal)
        return values.reshape(*index.shape, self.size[-1])

    def growth(self) -> dict[str, int] | None:
        if self.ndim < 2:
            return None
        tall, many = self.block[-2], self.block[-2] * self.per[-2]
        rows = {"codes": 1, "steps": tall, "lows": tall, "scale": many, "low": many}
        return {name: rows[name] for name in self.tensors()}

    def with_rows(self, tensors: dict[str, Tensor], rows: int) -> Self:
        return replace(self, **tensors, size=(*tensors["codes"].shape[:-2], rows, self.size[-1]))

    def flops(self, batch: int) -> int:
        return self.to_quantized().flops(batch)

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        block, per = (*(1 for _ in shape[:-1]), 2), (*(1 for _ in shape[:-1]), 3)
        grid = (*shape[:-1], -(-shape[-1] // 2))
        shared = (*shape[:-1], -(-grid[-1] // 3))

        def drawn(sizes: tuple[int, ...], bits: int) -> Tensor:
            return pack(torch.randint(1, 2**bits, sizes, generator=generator, dtype=torch.uint8), bits)

        scale, low = (0.1 + torch.rand(shared, generator=generator) for _ in range(2))
        return cls(drawn(shape, 3), drawn(grid, 6), drawn(grid, 6), scale, low, 3, 6, tuple(shape), block, per, dtype)
