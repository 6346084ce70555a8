"""Codes into a table whose numbers are those of a normal distribution."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.formats import Levels
from polyad.formats.stored.packing import pack
from polyad.quantize.blocks import block_shape, cut_blocks, grid_shape, join_blocks, present_numbers
from polyad.quantize.methods.round_to_nearest import check_scales, power_above, stored_scales

SHRUNK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Multiples that are tried of the scale with which the table spans a block."""
FITS = 2
"""How often a scale is fitted to its codes: Σ x t / Σ t² for the levels t that they name."""


@method(
    "quantize",
    makes=Levels,
    example={"bits": 4, "group": 32, "bound": lambda _: math.inf},
    papers=(
        Paper(
            "Dettmers, Pagnoni, Holtzman, Zettlemoyer",
            2023,
            "QLoRA: Efficient Finetuning of Quantized LLMs",
            "arXiv:2305.14314",
            adds="the table: quantiles of a normal distribution, as many below zero as above, and zero itself",
        ),
    ),
)
def normal_float(
    x: Tensor,
    bits: int,
    *,
    group: int | tuple[int, ...] | None = None,
    levels: tuple[float, ...] | None = None,
    scale_dtype: torch.dtype = torch.bfloat16,
    stats: object | None = None,  # noqa: ARG001 - every quantiser takes it; this one needs none
) -> Levels:
    """The nearest number of a table of 2**bits, times a scale for each group.

    ``levels`` is the table, rising, with numbers below and above zero; by default quantiles of a normal distribution
    from -1 to 1, zero among them. ``group`` is as in ``round_to_nearest``. Where the paper takes the scale that spans
    a group's largest number, seven down to 0.7 of it are tried, as stored, with either sign, and the one of the least
    squared error stays; each is fitted to its codes twice, which are then chosen again. Forty-two passes of a search
    in the table. Two bits at least.

    Raises ValueError for NaN and infinities, and for scales too large for ``scale_dtype``.

    >>> x = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    >>> round(normal_float(x, 4, group=32).error(x), 2)
    0.08
    """
    _check.finite("x", _check.dimensions("x", _check.floating("x", x), 1))
    if _check.bits(bits) < 2:
        raise ValueError(f"bits={bits} leaves no table beside zero; choose from 2 to 8")
    check_scales(scale_dtype)
    table = torch.tensor(quantiles(bits) if levels is None else levels, dtype=torch.float32)
    if table.shape != (2**bits,) or not bool((table.diff() > 0).all()) or not float(table[0]) < 0 < float(table[-1]):
        raise ValueError(
            f"levels={levels!r} are not 2**bits = {2**bits} rising numbers, some below and some above zero"
        )
    shape = tuple(x.shape)
    block = block_shape(shape, group)
    parted, axes = cut_blocks(x.detach().to(torch.float64 if x.dtype == torch.float64 else torch.float32), block)
    table = table.to(x.device)
    wide = table.to(parted.dtype)
    most = parted.abs().amax(axes, keepdim=True)
    unit = power_above(most)
    parted, most = parted / unit, most / unit
    present = present_numbers(parted, shape, block)
    present = torch.ones((), dtype=parted.dtype, device=x.device) if present is None else present
    scale = _search_scales(parted, present, (most, unit), wide, scale_dtype, axes)
    codes = join_blocks(_nearest(parted, scale / unit, wide).to(torch.uint8), shape, block)
    scale = scale.to(scale_dtype).reshape(grid_shape(shape, block))
    return Levels(pack(codes, bits), scale, table, bits, shape, block, x.dtype)


def quantiles(bits: int) -> tuple[float, ...]:
    """The table of the paper: 2**(bits - 1) quantiles below zero, zero, and the others above, from -1 to 1.

    >>> [round(level, 4) for level in quantiles(4)][:3], quantiles(4)[7]
    ([-1.0, -0.6962, -0.5251], 0.0)
    """
    half, end = 2 ** (bits - 1), 0.9677083
    below = torch.special.ndtri(torch.linspace(1 - end, 0.5, half, dtype=torch.float64))
    above = torch.special.ndtri(torch.linspace(0.5, end, half + 1, dtype=torch.float64))
    return (*(below / -below[0]).tolist()[:-1], 0.0, *(above / above[-1]).tolist()[1:])


def _search_scales(
    x: Tensor,
    present: Tensor,
    sizes: tuple[Tensor, Tensor],
    table: Tensor,
    dtype: torch.dtype,
    axes: tuple[int, ...],
) -> Tensor:
    """The stored scale of each block that leaves the least squared error of x where it is present.

    ``sizes`` are each block's largest number and the unit in which x is given.
    """
    most, unit = sizes
    best, scale = torch.full_like(most, torch.inf), torch.zeros_like(most)
    for share in (sign * share for share in SHRUNK for sign in (1, -1)):
        wanted = most * share / (-table[0] if share < 0 else table[-1])
        for _ in range(1 + FITS):
            stored = _signed_scales(wanted * unit, dtype).to(x.dtype)
            levels = table[_nearest(x, stored / unit, table)]
            error = (levels * (stored / unit) - x).square_().mul_(present).sum(axes, keepdim=True)
            best, scale = torch.minimum(error, best), torch.where(error < best, stored, scale)
            against = (present * levels.square()).sum(axes, keepdim=True)
            fitted = (present * x * levels).sum(axes, keepdim=True) / torch.where(against > 0, against, 1)
            wanted = torch.where(against > 0, fitted, wanted)
    return scale


def _signed_scales(scale: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.where(scale < 0, -1, 1) * stored_scales(scale.abs(), dtype)


def _nearest(x: Tensor, scale: Tensor, table: Tensor) -> Tensor:
    """The places of the nearest numbers of the table; of zero where there is no scale."""
    ratio = torch.where(scale == 0, 0, x) / torch.where(scale == 0, 1, scale)
    return torch.bucketize(ratio, (table[1:] + table[:-1]) / 2)
