"""Signed mantissas that share a power of two."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import Quantized
from polyad.formats.stored.packing import pack
from polyad.formats.stored.quantized import spread
from polyad.quantize.blocks import block_shape, cut_blocks, grid_shape

KSORT = Paper(
    "Trukhanov, Soloveychik", 2024, "Accurate Block Quantization in LLMs with Outliers", "arXiv:2403.20137",
    handle="ksort-bfp", adds="channels sorted by size before they share exponents",
)  # fmt: skip
LEAST = 2.0**-126
"""The least power of two that float32 holds to full precision: blocks of smaller numbers become zero."""


@method("quantize", makes=Quantized, example={"bits": 4, "group": 32, "bound": lambda _: 1.0}, papers=(KSORT,))
def block_floating_point(
    x: Tensor,
    bits: int,
    *,
    group: int | tuple[int, ...] | None = None,
    stats: object | None = None,  # noqa: ARG001 - every quantiser takes it; this one needs none
) -> Quantized:
    """Each block as signed mantissas of ``bits`` bits times a power of two, whose exponent takes one byte.

    The step is 2**(e + 2 - bits) for the exponent e of the block's largest number, so that this number has its
    leading bit below the mantissa's sign; numbers are rounded to the nearest multiple, and the largest positive one
    is one step less than a power of two. The error is at most half a step, and one step at that end. ``group`` is as
    in ``round_to_nearest``; a number takes bits + 8 / group bits. Two bits at least. Linear time.

    >>> q = block_floating_point(torch.tensor([[1.0, 0.25, -0.3, 3.0]]), 4)
    >>> q.to_dense().tolist(), q.scale.float().tolist(), q.scale.element_size()
    ([[1.0, 0.0, -0.5, 3.0]], [[0.5]], 1)
    """
    _check.finite("x", _check.dimensions("x", _check.floating("x", x), 1))
    if _check.bits(bits) < 2:
        raise ValueError(f"bits={bits} leaves no room beside the sign; choose from 2 to 8")
    shape = tuple(x.shape)
    block = block_shape(shape, group)
    wide = x.detach().to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    parted, axes = cut_blocks(wide.abs(), block)
    grid = grid_shape(shape, block)
    exponent = torch.frexp(parted.amax(axes)).exponent.reshape(grid) - 1
    if not exponent.is_meta and int(exponent.max()) > 125 + bits:
        raise ValueError(
            f"x holds numbers of 2**{int(exponent.max())}, whose step in {bits} bits is beyond the largest power "
            "of two of a one-byte exponent, 2**127; divide x first"
        )
    step = torch.ldexp(torch.ones_like(exponent, dtype=torch.float64), exponent + 2 - bits)
    step = step.clamp(min=LEAST)
    half = 2 ** (bits - 1)
    codes = (wide / spread(step, block, shape).to(wide.dtype)).round_().clamp_(-half, half - 1)
    scale = step.to(torch.float32).to(torch.float8_e8m0fnu)
    return Quantized(pack((codes + half).to(torch.uint8), bits), scale, None, bits, shape, block, x.dtype)
