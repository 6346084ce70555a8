"""From a tensor to integer codes with scales."""

from polyad.quantize.methods.block_floating_point import block_floating_point
from polyad.quantize.methods.least_distortion import least_distortion
from polyad.quantize.methods.normal_float import normal_float
from polyad.quantize.methods.round_to_nearest import largest_error, round_to_nearest
from polyad.quantize.methods.vs_quant import vs_quant

__all__ = [
    "block_floating_point", "largest_error", "least_distortion", "normal_float", "round_to_nearest", "vs_quant",
]  # fmt: skip
