"""A symmetric grid whose step makes the squared error of each block least."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import Quantized
from polyad.formats.stored.packing import pack
from polyad.quantize.blocks import block_shape, cut_blocks, grid_shape, join_blocks, present_numbers

GAUSSIAN = {1: 1.5958, 2: 0.9957, 3: 0.586, 4: 0.3352, 5: 0.1881, 6: 0.1041, 7: 0.0569, 8: 0.0308}
"""Steps that are best for numbers of a normal distribution with standard deviation 1, for each number of bits."""
AROUND = (0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.5, 1.8)
"""Multiples of that step that are tried."""
AT_ONCE = 2**17
"""Numbers that are tried with several steps in one pass, where there are few."""
STEPS = (torch.float8_e4m3fn, torch.bfloat16, torch.float16, torch.float32)


@method(
    "quantize",
    makes=Quantized,
    example={"bits": 3, "group": 32, "bound": lambda _: math.inf},
    papers=(
        Paper(
            "Max", 1960, "Quantizing for minimum distortion", "doi:10.1109/TIT.1960.1057548",
            adds="steps that are best for normally distributed numbers, of which multiples are tried here",
        ),
    ),
)  # fmt: skip
def least_distortion(
    x: Tensor,
    bits: int,
    *,
    group: int | tuple[int, ...] | None = None,
    scale_dtype: torch.dtype = torch.bfloat16,
    stats: object | None = None,  # noqa: ARG001 - every quantiser takes it; this one needs none
) -> Quantized:
    """Each block on the grid ±½, ±1½, … of a step that makes its squared error least, of nine steps that are tried.

    Where ``round_to_nearest`` spans a block, this clips what lies far out, which at one to three bits loses less.
    There is no zero point, and zero is not on the grid: use it on numbers that are spread about zero. The steps tried
    are multiples of that which is best for a normal distribution of the block's root mean square, as stored in
    ``scale_dtype``, which may be ``torch.float8_e4m3fn``: a number takes bits + 8 / group bits then, and blocks whose
    step would be below 2⁻⁶ take 2⁻⁶, above 448 448. ``group`` is as in ``round_to_nearest``. Nine passes.
    Raises ValueError for NaN and infinities, and where a scale of 16 bits or more would overflow, or
    all of them be too small for their dtype.

    >>> x = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    >>> q = least_distortion(x, 2, scale_dtype=torch.float8_e4m3fn)
    >>> q.nbytes, bool((q.to_dense() - x).square().mean() < 0.13)
    (68, True)
    """
    _check.finite("x", _check.dimensions("x", _check.floating("x", x), 1))
    _check.bits(bits)
    if scale_dtype not in STEPS:
        raise ValueError(f"scale_dtype={scale_dtype} cannot hold scales; choose from {', '.join(map(str, STEPS))}")
    shape = tuple(x.shape)
    block = block_shape(shape, group)
    parted, axes = cut_blocks(x.detach().to(torch.float64 if x.dtype == torch.float64 else torch.float32), block)
    unit = _near(parted, axes)
    parted = parted / unit
    present = present_numbers(parted, shape, block)
    squares = parted.square() if present is None else parted.square().mul_(present)
    ideal = squares.mean(axes, keepdim=True).sqrt() * GAUSSIAN[bits]
    _check_range(ideal * unit, scale_dtype)
    best, scale = torch.full_like(ideal, torch.inf), _stored(ideal * unit, scale_dtype).to(parted.dtype)
    tries = torch.tensor(AROUND, dtype=ideal.dtype, device=x.device).view(-1, *[1] * ideal.ndim)
    for factors in tries.split(max(1, AT_ONCE // max(1, parted.numel()))):
        stored = _stored(ideal * factors * unit, scale_dtype).to(parted.dtype)
        steps = stored / unit
        errors = _codes(parted, steps, bits).sub_(2 ** (bits - 1) - 0.5).mul_(steps).sub_(parted).square_()
        errors = errors if present is None else errors.mul_(present)
        error, which = errors.sum([axis + 1 for axis in axes], True).min(0)
        step = stored.gather(0, which.unsqueeze(0))[0]
        best, scale = torch.minimum(error, best), torch.where(error < best, step, scale)
    codes = join_blocks(_codes(parted, scale / unit, bits).to(torch.uint8), shape, block)
    grid = grid_shape(shape, block)
    scale = scale.to(scale_dtype).reshape(grid)
    return Quantized(pack(codes, bits), scale, 2 ** (bits - 1) - 0.5, bits, shape, block, x.dtype)


def _codes(x: Tensor, step: Tensor, bits: int) -> Tensor:
    return (x / step).floor_().add_(2 ** (bits - 1)).clamp_(0, 2**bits - 1)


def _near(parted: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The power of two below each block's largest number, so that squares of what is divided by it stay in range."""
    exponent = torch.frexp(parted.abs().amax(axes, keepdim=True)).exponent - 1
    return torch.ldexp(torch.ones_like(exponent, dtype=parted.dtype), exponent.clamp(min=-126))


def _check_range(ideal: Tensor, dtype: torch.dtype) -> None:
    """Refuse numbers whose steps are too large or all too small for the dtype, but for one of 8 bits.

    That takes its largest and its least; so do single blocks of small numbers, which are near zero beside the others.
    """
    limit, least = torch.finfo(dtype).max, torch.finfo(dtype).smallest_normal
    if dtype.itemsize > 1 and not ideal.is_meta and bool((ideal > limit).any()):
        raise ValueError(
            f"x needs a scale of {float(ideal.max()):.3g}, and scale_dtype={dtype} holds scales up to {limit:.3g}; "
            "choose a wider scale_dtype or divide x first"
        )
    if dtype.itemsize > 1 and not ideal.is_meta and 0 < float(ideal.max()) < least:
        raise ValueError(
            f"x needs scales of {float(ideal.max()):.3g} and less, and scale_dtype={dtype} holds scales from "
            f"{least:.3g}; choose a wider scale_dtype or multiply x first"
        )


def _stored(ideal: Tensor, dtype: torch.dtype) -> Tensor:
    """Steps in the dtype, none zero and none out of its range."""
    limits = torch.finfo(dtype)
    return ideal.clamp(limits.smallest_normal, limits.max).to(dtype)
