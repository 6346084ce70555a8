"""From a tensor to integer codes with scales."""

from polyad.quantize.block_floating_point import block_floating_point
from polyad.quantize.round_to_nearest import round_to_nearest

__all__ = ["block_floating_point", "round_to_nearest"]
