"""Integer codes with scales and zero points."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad.formats.format import Format
from polyad.formats.stored._few_rows import fold, folds
from polyad.formats.stored.dense import convolve, dense_product
from polyad.formats.stored.packed_cores import PackedCores, pack_cores
from polyad.formats.stored.packed_digits import PackedDigits, pack_digits
from polyad.formats.stored.packed_eight import PackedEight, pack_eight
from polyad.formats.stored.packed_four import PackedFour, pack_four
from polyad.formats.stored.packing import pack, packed_length, places, unpack


@dataclass(frozen=True, eq=False, repr=False)
class Quantized(Format):
    """``W = (code - zero) * scale`` for codes of 1 to 8 bits, packed along the last dimension.

    ``block`` gives the size, along each dimension, of the blocks that share a scale: ``size`` itself for one
    scale per tensor, (1, m) for one per row, (1, 64) for groups of 64 along a row, (64, 1) for groups of 64
    along a column. ``scale`` has shape ceil(size / block), in the precision stated; ``zero`` has the same shape
    (uint8, or floating where the exact minimum matters), is one number for all blocks, or is None for codes centred
    on half the range.
    A last block may be shorter. ``nominal`` is the dtype of ``to_dense``.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor | float | None
    bits: int
    size: tuple[int, ...]
    block: tuple[int, ...]
    nominal: torch.dtype = torch.float32

    exact: ClassVar[frozenset[str]] = frozenset({"scale", "zero"})

    def __post_init__(self) -> None:
        _check.bits(self.bits)
        if self.codes.shape[-1] != packed_length(self.size[-1], self.bits):
            raise ValueError(
                f"codes of shape {tuple(self.codes.shape)} do not hold {self.size[-1]} columns of {self.bits} bits"
            )
        if tuple(self.codes.shape[:-1]) != tuple(self.size[:-1]):
            raise ValueError(
                f"codes of shape {tuple(self.codes.shape)} are not those of a tensor of size {self.size}: "
                "only the last dimension is packed"
            )
        if len(self.block) != len(self.size) or min(self.block) < 1:
            raise ValueError(f"block={self.block} must give a number from 1 for each dimension of size={self.size}")
        grid = tuple(-(-n // b) for n, b in zip(self.size, self.block, strict=True))
        for name, value in (("scale", self.scale), ("zero", self.zero)):
            if isinstance(value, Tensor) and tuple(value.shape) != grid:
                raise ValueError(f"{name} of shape {tuple(value.shape)} does not fit the block grid {grid}")

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
        return restore_values(codes, self.scale, self.zero, self.bits, self.block, dtype)

    def to_dense(self) -> Tensor:
        return self.dequantize(self.nominal)

    def linear(self, x: Tensor) -> Tensor:
        if not folds(self.size, self.block, x):
            return dense_product(self.dequantize(x.dtype), x)
        wide = torch.promote_types(x.dtype, torch.float32)
        return fold([self._codes(wide)], *self._grid(wide), self.block[-2], x)

    def convolve(self, x: Tensor, kernel: tuple[int, ...], **geometry: Any) -> Tensor:
        return convolve(x, self.dequantize(x.dtype), kernel, **geometry)

    def transpose(self) -> Quantized:
        codes = unpack(self.codes, self.bits, self.size[-1]).mT
        size = (*self.size[:-2], self.size[-1], self.size[-2])
        block = (*self.block[:-2], self.block[-1], self.block[-2])
        zero = self.zero.mT if isinstance(self.zero, Tensor) else self.zero
        return Quantized(pack(codes, self.bits), self.scale.mT, zero, self.bits, size, block, self.nominal)

    def rows(self, index: Tensor) -> Tensor:
        flat = index.reshape(-1)
        values = self.restore_rows(unpack(self.codes[flat], self.bits, self.size[-1]), flat)
        return values.reshape(*index.shape, self.size[-1])

    def restore_rows(self, codes: Tensor, index: Tensor) -> Tensor:
        """The numbers of rows ``index`` (count,), whose codes (count, m) were had from elsewhere."""
        blocks = index // self.block[0]
        zero = self.zero[blocks] if isinstance(self.zero, Tensor) else self.zero
        return restore_values(codes, self.scale[blocks], zero, self.bits, (1, self.block[1]), self.nominal)

    def combine(self, weights: Tensor) -> Tensor:
        size, block = (*self.size[:-2], *self.size[:-3:-1]), (*self.block[:-2], *self.block[:-3:-1])
        if not folds(size, block, weights):
            return weights @ self.dequantize(weights.dtype)
        wide = torch.promote_types(weights.dtype, torch.float32)
        scale, zero = self._grid(wide)
        shift = zero.mT if isinstance(zero, Tensor) else zero
        whole = self.block[-1] % (8 // self.bits) == 0
        if self.block[-2] > 1 or self.bits not in (1, 2, 4) or not whole:
            return fold([self._codes(wide).mT], scale.mT, shift, block[-2], weights)
        apart = [place.to(wide).mT for place in places(self.codes, self.bits)]
        return fold(apart, scale.mT, shift, block[-2], weights, 2.0**self.bits)

    def _codes(self, dtype: torch.dtype) -> Tensor:
        return unpack(self.codes, self.bits, self.size[-1]).to(dtype)

    def _grid(self, dtype: torch.dtype) -> tuple[Tensor, Tensor | float]:
        """Scales and zero points as numbers."""
        zero = self.centre()
        return self.scale.to(dtype), zero.to(dtype) if isinstance(zero, Tensor) else zero

    def centre(self) -> Tensor | float:
        """The codes that stand for zero."""
        return middle(self.bits) if self.zero is None else self.zero

    def prepare(self, device: torch.device | str, kernel: str | None = None) -> Format | None:
        """This matrix in the layout of torch's ``kernel`` for a few rows on a device, or of the first that fits.

        None where none does. Such a format is never saved, and its ``restore`` gives this one back, bit for bit.
        """
        if self.scale.requires_grad:
            return None
        packers = PACKERS if torch.device(device).type == "cpu" else CUDA_PACKERS if self.scale.is_cuda else {}
        makers = (make for name, make in packers.items() if kernel in (None, name))
        return next((format for make in makers if (format := make(self)) is not None), None)

    def growth(self) -> dict[str, int] | None:
        return {name: 1 if name == "codes" else self.block[-2] for name in self.tensors()} if self.ndim > 1 else None

    def with_rows(self, tensors: dict[str, Tensor], rows: int) -> Self:
        return replace(self, **tensors, size=(*tensors["codes"].shape[:-2], rows, self.size[-1]))

    def flops(self, batch: int) -> int:
        return 2 * math.prod(self.size) * (batch + 1)  # the subtraction and product that restore each number

    @classmethod
    def random(cls, shape: tuple[int, ...], *, generator: Generator, dtype: torch.dtype = torch.float32) -> Self:
        bits, block = 3, (*(1 for _ in shape[:-1]), 4)
        codes = torch.randint(0, 2**bits, shape, generator=generator, dtype=torch.uint8)
        grid = tuple(-(-n // b) for n, b in zip(shape, block, strict=True))
        scale = 0.1 + torch.rand(grid, generator=generator)
        zero = torch.randint(0, 2**bits, grid, generator=generator, dtype=torch.uint8)
        return cls(pack(codes, bits), scale, zero, bits, tuple(shape), block, dtype)


PACKERS = {PackedEight.kernel: pack_eight, PackedFour.kernel: pack_four, PackedDigits.kernel: pack_digits}
"""What puts codes into the layout of a kernel, by its name."""
CUDA_PACKERS = {PackedCores.kernel: pack_cores}


def middle(bits: int) -> float:
    """The code that stands for zero where no zero point is stored."""
    return 2.0 ** (bits - 1) if bits > 1 else 0.5


def spread(x: Tensor, block: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """Repeat a value per block over the block's entries; shape ``size``."""
    for axis, (b, n) in enumerate(zip(block, size, strict=True)):
        if b > 1:
            repeated = x.unsqueeze(axis + 1).expand(*x.shape[: axis + 1], b, *x.shape[axis + 1 :])
            x = repeated.flatten(axis, axis + 1).narrow(axis, 0, n)
    return x


def restore_values(
    codes: Tensor, scale: Tensor, zero: Tensor | float | None, bits: int, block: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """(codes - zero) * scale, without spreading the scales out where the blocks are even."""
    size = tuple(codes.shape)
    grid = list(zip(size, block, strict=True))
    if any(n % b for n, b in grid):
        zeros = middle(bits) if zero is None else zero
        zeros = spread(zeros.to(dtype), block, size) if isinstance(zeros, Tensor) else zeros
        return (codes.to(dtype) - zeros) * spread(scale.to(dtype), block, size)
    parted = codes.to(dtype).reshape([k for n, b in grid for k in (n // b, b)])
    lift = [k for n, b in grid for k in (n // b, 1)]
    zeros = middle(bits) if zero is None else zero.to(dtype).reshape(lift) if isinstance(zero, Tensor) else zero
    parted = parted.sub_(zeros) if not torch.is_tensor(zeros) or not zeros.requires_grad else parted - zeros
    scales = scale.to(dtype).reshape(lift)
    return (parted * scales if parted.requires_grad or scales.requires_grad else parted.mul_(scales)).reshape(size)
