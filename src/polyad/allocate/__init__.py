"""Allocations: the sizes of many items under one budget."""

from polyad.allocate.block_influence import block_influence
from polyad.allocate.curve import Curve, Sizes
from polyad.allocate.equal_error import equal_error
from polyad.allocate.global_threshold import global_threshold
from polyad.allocate.greedy import greedy
from polyad.allocate.uniform import uniform

__all__ = ["Curve", "Sizes", "block_influence", "equal_error", "global_threshold", "greedy", "uniform"]
