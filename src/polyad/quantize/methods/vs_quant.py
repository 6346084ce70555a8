"""Uniform grids whose scales are integers of few bits beneath one scale of many blocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import Superblocks
from polyad.formats.stored.packing import pack
from polyad.formats.stored.quantized import middle, spread
from polyad.quantize.blocks import block_shape, cut_blocks, grid_shape, join_blocks, present_numbers
from polyad.quantize.methods.round_to_nearest import check_scales, power_above, stored_scales

SHRUNK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
"""Shares of a block's range that are tried: what lies beyond is clipped."""
NEAR = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (1, 1), (-1, -1))
"""Steps of scale and minimum beside the nearest to the best, which are tried as well."""


@method(
    "quantize",
    makes=Superblocks,
    example={"bits": 4, "group": 32, "bound": lambda _: math.inf, "options": ({"symmetric": True},)},
    papers=(
        Paper(
            "Dai, Venkatesan, Ren, Zimmer, Dally, Khailany",
            2021,
            "VS-Quant: Per-vector Scaled Quantization for Accurate Low-Precision Neural Network Inference",
            "arXiv:2102.04503",
            adds="scales of small blocks that are integers times one coarse scale",
        ),
    ),
)
def vs_quant(
    x: Tensor,
    bits: int,
    *,
    group: int | tuple[int, ...] | None = None,
    parts: int = 8,
    step_bits: int = 6,
    symmetric: bool = False,
    scale_dtype: torch.dtype = torch.bfloat16,
    stats: object | None = None,  # noqa: ARG001 - every quantiser takes it; this one needs none
) -> Superblocks:
    """Groups cut into ``parts`` blocks, whose scales and minima are ``step_bits`` bits of the group's.

    ``group`` is as in ``round_to_nearest``, and what depends on its own numbers alone. Its last axis that is longer
    than one is cut into blocks of equal length, at most ``parts`` of them. Each block's range, which includes zero,
    is tried whole and shrunk to three quarters, and with the scale and the minimum that fit these codes by least
    squares; then the multiples nearest to the best. What leaves the least squared error stays. The paper takes the
    scales that span each block, rounded, has no minima, and calibrates activations as well. ``symmetric`` codes
    are centred on half the range and have no minimum. With group=256, parts=8 a number takes bits + 1/2 + 1/8
    bits, or with 4 and 5 ``bits`` and ``scale_dtype=torch.float16`` what llama.cpp calls Q4_K and Q5_K;
    parts=16, step_bits=7, symmetric=True and 6 bits are Q6_K. Twenty passes.

    Raises ValueError for NaN and infinities, and for scales too large for ``scale_dtype``.

    >>> x = torch.randn(2, 256, generator=torch.Generator().manual_seed(0))
    >>> q = vs_quant(x, 4, group=256, scale_dtype=torch.float16)
    >>> q.nbytes, round(q.error(x), 2)
    (288, 0.08)
    """
    _check.finite("x", _check.dimensions("x", _check.floating("x", x), 1))
    _check.bits(bits)
    check_scales(scale_dtype)
    _check.at_least("parts", parts, 1)
    if step_bits not in range(1, 9):
        raise ValueError(f"step_bits={step_bits!r} is no number of bits; choose from 1 to 8")
    block, per = divide(tuple(x.shape), group, parts)
    return search_grids(x, block, per, bits, step_bits, symmetric, scale_dtype)


def search_grids(
    x: Tensor, block: tuple[int, ...], per: tuple[int, ...], bits: int, step_bits: int, symmetric: bool,
    scale_dtype: torch.dtype,
) -> Superblocks:  # fmt: skip
    """The codes of x on the grids of its blocks that leave the least squared error of those tried."""
    shape = tuple(x.shape)
    grid = grid_shape(shape, block)
    parted, axes = cut_blocks(x.detach().to(torch.float64 if x.dtype == torch.float64 else torch.float32), block)
    reduced = parted.amax(axes, keepdim=True).shape

    def largest(values: Tensor) -> Tensor:
        """The largest of each group's blocks."""
        apart, inside = cut_blocks(values.reshape(grid), per)
        return apart.amax(inside).reshape(grid_shape(grid, per))

    def by_block(values: Tensor) -> Tensor:
        return spread(values, per, grid).reshape(reduced)

    unit = power_above(largest(parted.abs().amax(axes)))
    parted = parted / by_block(unit)
    tries = Tries(parted, axes, present_numbers(parted, shape, block), bits, symmetric)
    tries.add_ranges()
    most = 2**step_bits - 1
    scale = stored_scales(largest(tries.scale) / most * unit, scale_dtype)
    base = None if symmetric else stored_scales(largest(tries.low) / most * unit, scale_dtype)
    step = by_block(scale.to(parted.dtype) / unit)
    drop = torch.ones_like(step) if base is None else by_block(base.to(parted.dtype) / unit)
    steps, lows = tries.add_stored(step, drop, most)
    codes = join_blocks(tries.codes(tries.scale, tries.low).to(torch.uint8), shape, block)
    packed = [pack(t.reshape(grid).to(torch.uint8), step_bits) for t in (steps, lows)]
    return Superblocks(
        pack(codes, bits), packed[0], None if symmetric else packed[1], scale, base, bits, step_bits, shape, block,
        per, x.dtype,
    )  # fmt: skip


def divide(
    shape: tuple[int, ...], group: int | tuple[int, ...] | None, parts: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Blocks that divide a group evenly along its last long axis, at most so many, and how many along each axis.

    >>> divide((4, 512), 256, 8), divide((18, 2), (9, 1), 4)
    (((1, 32), (1, 8)), ((3, 1), (3, 1)))
    """
    cut = block_shape(shape, group)  # no longer than the axes, which the blocks of a short group must not depend on
    ends = (shape[-1],) if group is None else tuple(group) if isinstance(group, tuple | list) else (int(group),)
    whole = [*[1] * (len(shape) - len(ends)), *ends]
    axis = max((i for i, n in enumerate(whole) if n > 1), default=len(whole) - 1)
    count = next(n for n in range(min(parts, whole[axis]), 0, -1) if whole[axis] % n == 0)
    whole[axis] //= count
    block = tuple(min(n, b) for n, b in zip(whole, cut, strict=True))
    return block, tuple(-(-n // b) if i == axis else 1 for i, (n, b) in enumerate(zip(cut, block, strict=True)))


class Tries:
    """Scales and minima of blocks that were tried, and the best of each block by the squared error that it leaves."""

    def __init__(self, x: Tensor, axes: tuple[int, ...], present: Tensor | None, bits: int, symmetric: bool) -> None:
        self.x, self.axes, self.bits, self.symmetric = x, axes, bits, symmetric
        self.present = torch.ones((), dtype=x.dtype, device=x.device) if present is None else present
        self.error = torch.full_like(x.amax(axes, keepdim=True), torch.inf)
        self.scale = self.low = torch.zeros_like(self.error)

    def add_ranges(self) -> None:
        """Try the grid that spans a block and shrunk ones, and after each the one that fits its codes."""
        low = -self.x.amin(self.axes, keepdim=True).clamp(max=0)
        high = self.x.amax(self.axes, keepdim=True).clamp(min=0)
        reach = 2 ** (self.bits - 1) - 1 if self.bits > 1 else 0.5
        scale = torch.maximum(low, high) / reach if self.symmetric else (low + high) / (2**self.bits - 1)
        for share in SHRUNK:
            self.add(scale * share, low * share)
            self.add(*self.least_squares(self.codes(scale * share, low * share)))

    def add_stored(self, step: Tensor, drop: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """Try multiples of what is stored next to the best so far, and these alone; the multiples that are best."""
        steps, lows = _ratio(self.scale, step).round(), _ratio(self.low, drop).round()
        needed = (self.scale > 0) & (step > 0)
        self.error = torch.full_like(self.error, torch.inf)
        for more, lower in NEAR if not self.symmetric else NEAR[:3]:
            least = needed.to(steps.dtype)  # a block with no scale would hold zeros
            self.add(torch.maximum(steps + more, least).clamp(max=most) * step, (lows + lower).clamp(0, most) * drop)
        return _ratio(self.scale, step).round(), _ratio(self.low, drop).round()

    def add(self, scale: Tensor, low: Tensor) -> None:
        """Try a scale and a minimum for each block."""
        low = torch.where(scale > 0, low, 0)
        codes = self.codes(scale, low)
        numbers = (codes - middle(self.bits)) * scale if self.symmetric else codes * scale - low
        error = self._total((numbers - self.x).square())
        better = error < self.error
        self.scale, self.low = torch.where(better, scale, self.scale), torch.where(better, low, self.low)
        self.error = torch.minimum(error, self.error)

    def codes(self, scale: Tensor, low: Tensor) -> Tensor:
        """The nearest codes of these grids."""
        shift = middle(self.bits) if self.symmetric else _ratio(low, scale)
        return (_ratio(self.x, scale) + shift + 0.5).floor_().clamp_(0, 2**self.bits - 1)

    def least_squares(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The scale and the minimum that fit codes by least squares."""
        if self.symmetric:
            codes = codes - middle(self.bits)
            scale = _ratio(self._total(codes * self.x), self._total(codes.square()))
            return scale.clamp(min=0), torch.zeros_like(scale)
        count = self._total(torch.ones_like(codes))
        x, q = self._total(self.x) / count, self._total(codes) / count
        scale = _ratio(self._total((codes - q) * (self.x - x)), self._total((codes - q).square())).clamp(min=0)
        return scale, (scale * q - x).clamp(min=0)

    def _total(self, numbers: Tensor) -> Tensor:
        """The sum over each block, of what it holds and not of what fills it up."""
        return (numbers * self.present).sum(self.axes, keepdim=True)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b == 0, 0, a) / torch.where(b == 0, 1, b)
