"""From a tensor to integer codes with scales."""

from polyad.quantize.methods.block_floating_point import block_floating_point
from polyad.quantize.methods.least_distortion import least_distortion
from polyad.quantize.methods.round_to_nearest import largest_error, round_to_nearest

__all__ = ["block_floating_point", "largest_error", "least_distortion", "round_to_nearest"]
