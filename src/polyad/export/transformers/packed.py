"""Quantised matrices in the layout that compressed-tensors calls pack-quantized."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyad.formats.format import Format
from polyad.formats.stored.block_values import block_values
from polyad.formats.stored.packing import pack, unpack
from polyad.formats.stored.quantized import Quantized, middle

WIDTHS = (4, 8)
"""The bits of a code in a file; versions of the reader disagree on the packing of others."""
LEAST_GROUP = 8


@dataclass(frozen=True)
class Scheme:
    """The layout of a matrix: bits of a code, columns that share a scale (None: whole rows), and no zero points."""

    bits: int
    group: int | None
    symmetric: bool

    def stated(self) -> dict[str, Any]:
        """This scheme as a configuration states it."""
        return {
            "num_bits": self.bits, "type": "int", "symmetric": self.symmetric, "dynamic": False,
            "strategy": "channel" if self.group is None else "group", "group_size": self.group,
        }  # fmt: skip


def join_schemes(schemes: Mapping[str, Scheme], columns: Mapping[str, int]) -> Scheme:
    """The scheme that holds exactly what each of several layers holds."""
    whole = all(scheme.group is None for scheme in schemes.values())
    group = math.gcd(*(scheme.group or columns[path] for path, scheme in schemes.items()))
    return Scheme(
        max(scheme.bits for scheme in schemes.values()),
        None if whole else group,
        all(scheme.symmetric for scheme in schemes.values()),
    )


def obstacle(weight: Format) -> str | None:
    """The reason that a weight has no place in the layout; None where it has one."""
    if not isinstance(weight, Quantized):
        return f"it is a {type(weight).__name__}"
    if len(weight.size) != 2:
        return f"its codes have {len(weight.size)} dimensions"
    columns, group = weight.size[1], weight.block[1]
    if group < columns and math.gcd(group, columns) < LEAST_GROUP:
        return f"groups of {group} in rows of {columns} leave groups of {math.gcd(group, columns)}"
    points = _points(weight).float()
    if not bool(((points == points.round()) & (points >= 0) & (points < 2**weight.bits)).all()):
        return "its zero points are no codes"
    return None


def scheme_of(weight: Quantized) -> Scheme:
    """The smallest scheme that holds a weight exactly."""
    columns, group = weight.size[1], weight.block[1]
    bits = next(width for width in WIDTHS if weight.bits <= width)
    symmetric = bool((_points(weight) == middle(weight.bits)).all())
    return Scheme(bits, None if group >= columns else math.gcd(group, columns), symmetric)


def packed_tensors(weight: Quantized, scheme: Scheme, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of a matrix (n, m) in this scheme, by the last part of their names; numbers come back in ``dtype``.

    A code is stored as it is, and the reader takes half the range from it; so a narrower code moves up by what the
    middles of both ranges differ, and its zero point with it.
    """
    (rows, columns), lift = weight.size, int(middle(scheme.bits) - middle(weight.bits))
    codes = unpack(weight.codes, weight.bits, columns) + lift
    wide = scheme.group or columns
    scale = block_values(weight, weight.scale, wide).to(dtype)  # in which the reader multiplies
    tensors = {
        "weight_packed": words(codes, scheme.bits), "weight_scale": scale,
        "weight_shape": torch.tensor([rows, columns]),
    }  # fmt: skip
    if not scheme.symmetric:
        points = block_values(weight, weight.centre(), wide).to(torch.uint8) + lift
        tensors["weight_zero_point"] = words(points.mT, scheme.bits).mT.contiguous()
    return tensors


def _points(weight: Quantized) -> Tensor:
    zero = weight.centre()
    return zero if isinstance(zero, Tensor) else torch.full_like(weight.scale, float(zero))


def words(codes: Tensor, bits: int) -> Tensor:
    """Codes (n, m) of 4 or 8 bits in int32 words (n, ceil(m bits / 32)), the first code in the lowest bits."""
    packed = pack(codes.contiguous(), bits)
    filled = torch.nn.functional.pad(packed, (0, -packed.shape[1] % 4))
    return filled.clone(memory_format=torch.contiguous_format).view(torch.int32)


def config_groups(schemes: Mapping[str, Scheme]) -> dict[str, Any]:
    """The quantization_config of layers by path.

    transformers keeps codes packed until a layer is first used, but makes too large a place for packed zero points;
    where there are any it is told to restore all numbers as it loads, which it does by one scheme for all layers.
    """
    groups: dict[str, Any] = {}
    for i, scheme in enumerate(dict.fromkeys(schemes.values())):
        targets = [path for path, other in schemes.items() if other == scheme]
        groups[f"group_{i}"] = {
            "targets": targets, "weights": scheme.stated(), "input_activations": None, "output_activations": None,
            "format": "pack-quantized",
        }  # fmt: skip
    return {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "config_groups": groups, "ignore": [], "kv_cache_scheme": None,
        "dequantize": any(not scheme.symmetric for scheme in schemes.values()),
    }  # fmt: skip
