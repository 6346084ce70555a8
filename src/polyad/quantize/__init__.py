"""From a tensor to integer codes with scales."""

from polyad.quantize.round_to_nearest import round_to_nearest

__all__ = ["round_to_nearest"]
