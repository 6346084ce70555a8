"""Round every number to the nearest point of its block's uniform grid."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import Quantized
from polyad.formats.stored.packing import pack
from polyad.formats.stored.quantized import middle
from polyad.quantize.blocks import block_shape, cut_blocks, grid_shape, join_blocks

SCALES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def largest_error(q: Quantized) -> float:
    """The most by which ``round_to_nearest`` can miss a number, in scales of its block.

    >>> largest_error(round_to_nearest(torch.ones(1, 8), 8)), largest_error(round_to_nearest(torch.ones(1, 8), 4))
    (1.5, 0.5588235294117647)
    """
    if q.zero is None:  # the range reaches half a scale beyond the codes in use
        return 0.5
    rounding = torch.finfo(q.scale.dtype).eps / 2
    moved = 0.5 if isinstance(q.zero, Tensor) and q.zero.is_floating_point() else 0.0
    return 0.5 + moved + (2**q.bits - 1) * rounding / (1 - rounding)


@method(
    "quantize",
    makes=Quantized,
    example={
        "bits": 4,
        "group": 32,
        "bound": largest_error,
        "options": (
            {"symmetric": True},
            {"zero_dtype": torch.bfloat16},
            {"zero_dtype": torch.float32, "scale_dtype": torch.float32},
        ),
    },
    papers=(
        Paper(
            "Jacob, Kligys, Chen, Zhu, Tang, Howard, Adam, Kalenichenko",
            2018,
            "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
            "arXiv:1712.05877",
            adds="the affine grid: a scale and a zero point that is itself a code",
        ),
    ),
)
def round_to_nearest(
    x: Tensor,
    bits: int,
    *,
    group: int | tuple[int, ...] | None = None,
    symmetric: bool = False,
    scale_dtype: torch.dtype = torch.bfloat16,
    zero_dtype: torch.dtype = torch.uint8,
    stats: object | None = None,  # noqa: ARG001 - every quantiser takes it; this one needs none
) -> Quantized:
    """The nearest point of a uniform grid that spans each block from its least to its greatest number.

    ``x`` has any shape (…, m) and a floating dtype, which becomes the result's; the arithmetic is float32
    (float64 for float64). ``group`` is a number of entries along the last axis, None for a scale per row, or the
    block itself, aligned with the last axes: (64, 1) for 64 entries along the last axis but one. A last block may
    be shorter. Codes have 1 to 8 ``bits`` and are computed with the scale and zero point as stored:

    - ``symmetric``: codes centred on 2**(bits-1), scale = max|x| / (2**(bits-1) - 1), no zero point. The lowest
      code stays unused above one bit; one bit gives ±max|x|.
    - ``zero_dtype=torch.uint8``: the zero point is a code, so zero comes back exactly and the range is widened to
      include it.
    - a floating ``zero_dtype``: the range starts at the block's exact minimum and ``zero = -minimum / scale``. The
      scale is kept large enough that this dtype holds the zero point to half a code.

    The error is at most half a scale, and at the ends of a block more: a scale that was rounded down when it was
    stored leaves them up to 2**bits - 1 of its roundings outside the grid, which for bfloat16 is another 0.06 scales
    at 4 bits and a whole one at 8, and a floating zero point moves the grid by up to half a scale. Symmetric codes
    have room at their ends. ``largest_error`` is the sum. Constant blocks come back within the scale's precision, and
    blocks of zeros exactly. Takes time and memory linear in x.

    Raises ValueError for NaN and infinities, and where a block's scale is too large for ``scale_dtype``. One that is
    too small for it is rounded up: half of float16's least step, 3e-8, is the most by which that misses a number, and
    blocks whose scale is below 1e-38 come back as zeros or nearly so.

    >>> x = torch.linspace(-1, 1, 12).reshape(2, 6)
    >>> q = round_to_nearest(x, 4, group=3)
    >>> q.shape, q.nbytes, bool((q.to_dense() - x).abs().max() <= 0.51 * q.scale.float().max())
    ((2, 6), 18, True)
    """
    _check.floating("x", x)
    _check.finite("x", _check.dimensions("x", x, 1))
    _check.bits(bits)
    check_scales(scale_dtype)
    if zero_dtype not in (torch.uint8, *SCALES):
        raise ValueError(
            f"zero_dtype={zero_dtype} cannot hold zero points; choose torch.uint8 or one of "
            f"{', '.join(map(str, SCALES))}"
        )
    block = block_shape(tuple(x.shape), group)
    work = x.detach().to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    parted, axes = cut_blocks(work, block)
    low, high = parted.amin(axes, keepdim=True), parted.amax(axes, keepdim=True)
    ideal = _ideal(low, high, bits, None if symmetric else zero_dtype, torch.finfo(x.dtype).max)
    scale = stored_scales(ideal, scale_dtype)
    step = torch.where(scale == 0, 1, scale).to(work.dtype)
    zero = None if symmetric else _zero(low, step, bits, zero_dtype)
    shift = middle(bits) if zero is None else zero.to(work.dtype)
    codes = (parted / step).add_(shift + 0.5).floor_().clamp_(0, 2**bits - 1).to(torch.uint8)
    grid = grid_shape(tuple(x.shape), block)
    codes = join_blocks(codes, tuple(x.shape), block)
    zero = None if zero is None else zero.reshape(grid)
    result = Quantized(pack(codes, bits), scale.reshape(grid), zero, bits, tuple(x.shape), block, x.dtype)
    most = torch.finfo(x.dtype).max
    if not x.is_meta and float(high.amax()) - float(low.amin()) > most / 4:
        _check_restored(result, most)
    return result


def _check_restored(q: Quantized, most: float) -> None:
    """Refuse numbers so near the largest of their dtype that they come back as infinities."""
    if not bool(torch.isfinite(q.to_dense()).all()):
        raise ValueError(
            f"x holds numbers next to the largest of {q.dtype}, {most:.4g}, which its grid rounds to infinity; "
            "divide x first or give it in a wider dtype"
        )


def check_scales(dtype: torch.dtype) -> None:
    """Refuse a dtype that holds no scales."""
    if dtype not in SCALES:
        raise ValueError(f"scale_dtype={dtype} cannot hold scales; choose from {', '.join(map(str, SCALES))}")


def _ideal(low: Tensor, high: Tensor, bits: int, zero_dtype: torch.dtype | None, most: float) -> Tensor:
    """The scale with which the grid spans the block; ``zero_dtype`` None for centred codes.

    ``most`` is the largest number of the result's dtype, in which zero points are subtracted.
    """
    largest = torch.maximum(high, -low)
    if zero_dtype is None:
        return largest / (2 ** (bits - 1) - 1) if bits > 1 else largest * 2
    if zero_dtype == torch.uint8:
        high, low = high.clamp(min=0), low.clamp(max=0)
    codes = 2**bits - 1
    scale = torch.where(torch.isinf(high - low), high / codes - low / codes, (high - low) / codes)
    if zero_dtype == torch.uint8:
        return scale
    # up to 2 / eps, neighbours in zero_dtype are at most one code apart
    return torch.maximum(scale, largest * max(torch.finfo(zero_dtype).eps / 2, 2 / most))


def power_above(most: Tensor) -> Tensor:
    """The power of two above each number, so that squares of what is divided by it stay in range."""
    exponent = torch.frexp(most).exponent
    return torch.ldexp(torch.ones_like(exponent, dtype=most.dtype), exponent.clamp(min=-126))


def stored_scales(ideal: Tensor, dtype: torch.dtype) -> Tensor:
    """The scales in ``dtype``; those too large for it are refused.

    Small ones are rounded up, so that the grid still spans its block: to a step of float16's last digits, and of the
    other dtypes, whose small numbers processors may take for zero, to the least with all digits.
    """
    limits = torch.finfo(dtype)
    least = limits.smallest_normal * (limits.eps if dtype == torch.float16 else 1)
    small = (ideal > 0) & (ideal < limits.smallest_normal)
    ideal = torch.where(small, (ideal / least).ceil() * least, ideal)
    scale = ideal.to(dtype)
    if not scale.is_meta:
        outside = ~torch.isfinite(scale)
        if bool(outside.any()):
            raise ValueError(
                f"scale_dtype={dtype} holds scales up to {limits.max:.3g}; {int(outside.sum())} of "
                f"{outside.numel()} blocks need a larger one, such as {ideal[outside][0].item():.3g}; choose a wider "
                "scale_dtype or divide x first"
            )
    return scale


def _zero(low: Tensor, step: Tensor, bits: int, zero_dtype: torch.dtype) -> Tensor:
    """The code that stands for zero, as stored."""
    if zero_dtype != torch.uint8:
        return (-low / step).to(zero_dtype)
    return (-low.clamp(max=0) / step).round().clamp(0, 2**bits - 1).to(torch.uint8)
