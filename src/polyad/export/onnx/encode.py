"""Formats of a model, in the layout that an ONNX file holds."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from polyad.export.onnx.codes import BLOCKS, BlockCodes, PlainCodes
from polyad.formats.format import Format
from polyad.formats.stored.block_values import block_values
from polyad.formats.stored.levels import Levels
from polyad.formats.stored.packing import unpack
from polyad.formats.stored.quantized import Quantized, middle
from polyad.formats.stored.sparse import Sparse
from polyad.formats.stored.superblocks import Superblocks


def pack_places(codes: Tensor, bits: int) -> Tensor:
    """Codes below 2**bits in the first places of bytes, the last byte filled up with zeros."""
    per = 8 // bits
    codes = F.pad(codes, (0, -codes.shape[-1] % per)).unflatten(-1, (-1, per))
    return (codes << torch.arange(0, 8, bits, dtype=torch.uint8)).sum(-1, dtype=torch.uint8)


def encode_quantized(weight: Quantized) -> BlockCodes | PlainCodes:
    """A quantised tensor in the layout that an ONNX file holds, number for number."""
    block = _block_size(weight)
    return _plain(weight) if block is None else _in_blocks(weight, block)


def _block_size(weight: Quantized) -> int | None:
    """The length of blocks that takes the fewest bytes and that no block of the weight ends inside of."""
    if len(weight.size) != 2:
        return None
    columns, group, bits = weight.size[1], weight.block[1], _width(weight.bits)
    fitting = [b for b in BLOCKS if group % b == 0 or group >= columns]
    if weight.bits < 3:  # shorter and longer ones have no kernel for rounded rows
        fitting = [b for b in fitting if 32 <= b <= 128] or fitting
    return min(fitting, key=lambda b: -(-columns // b) * (b * bits // 8 + weight.scale.dtype.itemsize), default=None)


def _width(bits: int) -> int:
    """The bits of a code in the file: 2, 4 or 8."""
    return next(width for width in (2, 4, 8) if bits <= width)


def _in_blocks(weight: Quantized, block: int) -> BlockCodes:
    columns, bits = weight.size[1], _width(weight.bits)
    count = -(-columns // block)
    codes = F.pad(unpack(weight.codes, weight.bits, columns), (0, count * block - columns))
    scale, points = block_values(weight, weight.scale, block), block_values(weight, weight.centre(), block).float()
    whole = bool(((points == points.round()) & (points >= 0) & (points < 2**bits)).all())
    at_middle = bool((points == middle(bits)).all())
    offset = None if whole else (middle(bits) - points) * scale.float()
    stored = None if at_middle or not whole else pack_places(points.to(torch.uint8), bits)
    packed = pack_places(codes.unflatten(1, (count, block)), bits)
    return BlockCodes(packed, scale.contiguous(), stored, offset, bits, columns, block, weight.nominal)


def _plain(weight: Quantized | Levels) -> PlainCodes:
    """Codes that are restored when the file is loaded, less a zero point or by their table."""
    bits = next(width for width in (1, 2, 4, 8) if weight.bits <= width)
    packed = pack_places(unpack(weight.codes, weight.bits, weight.size[-1]), bits)
    zero, levels = (0.0, weight.levels) if isinstance(weight, Levels) else (weight.centre(), None)
    return PlainCodes(packed, weight.scale, zero, levels, bits, weight.size, weight.block, weight.nominal)


def encode_format(weight: Format) -> Format:
    """A format with every quantised part in the layout of ONNX files; the others stay as they are."""
    if isinstance(weight, Superblocks):
        weight = weight.to_quantized()
    if isinstance(weight, Quantized):
        return encode_quantized(weight)
    if isinstance(weight, Levels):
        return _plain(weight)
    if isinstance(weight, Sparse):  # whose bits no operator of ONNX finds places by
        place = torch.int32 if math.prod(weight.size) < 2**31 else torch.int64
        return Sparse(weight.values, weight.index().to(place), weight.size)
    fields = {name: _encode(getattr(weight, name)) for name in weight.field_names()}
    return type(weight)(**fields)


def _encode(value: Any) -> Any:
    if isinstance(value, Format):
        return encode_format(value)
    return tuple(_encode(part) for part in value) if isinstance(value, tuple) else value


def stored_layers(weight: Format) -> list[Format]:
    """The quantised parts of an encoded format."""
    if isinstance(weight, BlockCodes | PlainCodes):
        return [weight]
    values = [getattr(weight, name) for name in weight.field_names()]
    parts = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
    return [code for part in parts if isinstance(part, Format) for code in stored_layers(part)]
