"""The contract of a format: functions that take a kind or one instance and assert a property each.

They are plain functions with plain asserts, so that they hold formats defined elsewhere to the same contract:

>>> from polyad.formats import LowRank
>>> for check in CHECKS:
...     check(LowRank(torch.ones(4, 2), torch.ones(2, 6)))
"""

from polyad.testing._contract import MULTIWAY, SHAPES, examples
from polyad.testing.formats._algebra import batches, dense, gradients, linear, operations, precision, rows, transpose
from polyad.testing.formats._arithmetic import addition, contraction, hadamard, indexing, inner, stacks
from polyad.testing.formats._convolution import channel_groups, convolve, uneven
from polyad.testing.formats._rounding import rounding
from polyad.testing.formats._storage import cast, copies, size, spec, storage, tensors, tree
from polyad.testing.formats._variants import variants

CHECKS = (
    dense, linear, precision, transpose, rows, gradients, operations, convolve, uneven, channel_groups,
    tensors, spec, storage, size, cast, tree, copies, batches,
    addition, hadamard, inner, indexing, contraction, stacks, rounding,
)  # fmt: skip
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "MULTIWAY", "SHAPES", "addition", "batches", "cast", "channel_groups", "contraction", "convolve",
    "copies", "dense", "examples", "gradients", "hadamard", "indexing", "inner", "linear", "operations", "precision",
    "rounding", "rows", "size", "spec", "stacks", "storage", "tensors", "transpose", "tree", "uneven", "variants",
]  # fmt: skip
