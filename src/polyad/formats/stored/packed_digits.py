"""Codes with a scale a row for torch's products of 8-bit integers, whose rows come in two digits of 7 bits."""

from __future__ import annotations

import functools
import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from polyad.formats.stored.packed_grid import is_whole
from polyad.formats.stored.packed_matrix import PackedMatrix, without_codes
from polyad.formats.stored.packing import unpack

DIGIT = 63
"""The largest number of the first digit; the second is a 128th of its unit."""
UNIT = 128.0


@functools.cache
def byte_operator() -> Any:
    """torch's product of rows, rounded to 8 bits by a given scale, with packed integers; None where there is none.

    Processors without dot products of bytes add two of them in 16 bits, which large ones overflow: not used there.
    """
    packet = getattr(torch.ops.quantized, "linear_with_input_q_dq_qweight_dq_output_fp32", None)
    if packet is None or torch.backends.quantized.engine not in ("x86", "fbgemm"):
        return None
    with torch.inference_mode(False), torch.no_grad():
        largest = torch.full((16, 64), 127, dtype=torch.int8, device="cpu")
        y = packet.default(largest.float(), 1.0, 128, _prepack(largest, torch.ones(16), torch.zeros(16).long()))
    return packet.default if bool((y == 64 * 127**2).all()) else None


def _prepack(integers: Tensor, scale: Tensor, zero: Tensor) -> Any:
    """torch's own object for integers (n, k) with a scale and a whole zero point a row."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and tried out before it is used
        matrix = torch._make_per_channel_quantized_tensor(integers, scale.double(), zero, 0)  # pyright: ignore
        return torch.ops.quantized.linear_prepack(matrix, None)


@dataclass(frozen=True, eq=False, repr=False)
class PackedDigits(PackedMatrix, abstract=True):
    """Codes of 5 to 8 bits with a scale a row, as torch's product of 8-bit integers takes them.

    ``packed`` is torch's own object: integers, their scales and whole zero points. A row x is written as two rows of
    integers, x = s (a + b / 128) with a below 64 and b up to 128, so that the product rounds no more than bfloat16
    does; the matrix is read once for both.
    """

    kernel: ClassVar[str] = "digits8"

    packed: Any
    shares: Tensor

    @property
    def stored(self) -> int:
        return self.shape[0] * (self.shape[1] + 8)  # with torch's own scale and zero point, of 4 bytes each

    @property
    def wide(self) -> int:
        return self.shape[1]

    def codes(self) -> Tensor:
        integers = torch.ops.quantized.linear_unpack(self.packed)[0].int_repr()
        return (integers + 2 ** (self.source.bits - 1)).view(torch.uint8)  # wraps at 8 bits

    def few(self, x: Tensor) -> Tensor:
        rows, x = x.shape[0], x.float()
        if rows == 1 and not torch.compiler.is_compiling():
            unit = max(float(x.abs().amax()) / DIGIT, 1e-30)
            if math.isfinite(unit):
                return self._one(x, unit)
        scale = (x.abs().amax(-1, keepdim=True) / DIGIT).clamp_min_(1e-30)
        x = x / scale
        first = torch.round(x)
        digits = torch.cat([first, torch.lerp(first, x, UNIT)])  # the second less the first is 128 times what is lost
        y = byte_operator()(digits, 1.0, 128, self.packed)
        y = (self.shares @ y.view(2, -1)).view(rows, -1)
        return y.mul_(scale).bfloat16()

    def _one(self, x: Tensor, unit: float) -> Tensor:
        """The same for one row in float32, by fewer calls of torch: each takes microseconds."""
        first = torch.fake_quantize_per_tensor_affine(x, unit, 0, -DIGIT, DIGIT)
        digits = torch.cat([first, torch.lerp(first, x, UNIT)])
        return (self.shares @ byte_operator()(digits, unit, 128, self.packed)).bfloat16()

    def dense(self, dtype: torch.dtype) -> Tensor:
        wide = torch.promote_types(dtype, torch.float32)
        zero = self.source.centre()
        zero = zero.to(wide) if isinstance(zero, Tensor) else zero
        return self.codes().to(wide).sub_(zero).mul_(self.source.scale.to(wide)).to(dtype)


def pack_digits(source: Any) -> PackedDigits | None:
    """A quantised matrix in this layout; None where its blocks, its bits or its zero points do not fit."""
    by_row = len(source.size) == 2 and source.block[0] == 1 and source.block[1] >= source.size[1]
    if byte_operator() is None or not by_row or source.bits <= 4 or not is_whole(source.zero) or min(source.size) < 1:
        return None
    (n, k), middle, centre = source.size, 2 ** (source.bits - 1), source.centre()
    scale = source.scale.double().reshape(-1)
    zero = centre.long().reshape(-1) if isinstance(centre, Tensor) else torch.full((n,), int(centre))
    zero = zero - middle
    if (
        not bool((zero >= -128).all())
        or not bool((zero < 128).all())
        or not bool(torch.isfinite(scale.float()).all())
    ):
        return None
    integers = (unpack(source.codes, source.bits, k) - middle).view(torch.int8)  # wraps, to the integer's own bits
    packed = _prepack(integers, scale, zero)
    return PackedDigits(without_codes(source), packed, torch.tensor([[1 - 1 / UNIT, 1 / UNIT]]))
