"""The contract of a format: functions that take a kind or one instance and assert a property each.

They are plain functions with plain asserts, so that they hold formats defined elsewhere to the same contract:

>>> from polyad.formats import LowRank
>>> for check in CHECKS:
...     check(LowRank(torch.ones(4, 2), torch.ones(2, 6)))
"""

from polyad.testing._contract import MULTIWAY, SHAPES, examples
from polyad.testing.formats._algebra import batches, dense, gradients, linear, operations, precision, rows, transpose
from polyad.testing.formats._arithmetic import addition, contraction, hadamard, indexing, inner, stacked
from polyad.testing.formats._convolution import convolve, grouped, uneven
from polyad.testing.formats._rounding import rounding
from polyad.testing.formats._storage import cast, copies, saving, size, spec, tensors, tree
from polyad.testing.formats._variants import variants

CHECKS = (
    dense, linear, precision, transpose, rows, gradients, operations, convolve, uneven, grouped,
    tensors, spec, saving, size, cast, tree, copies, batches,
    addition, hadamard, inner, indexing, contraction, stacked, rounding,
)  # fmt: skip
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "MULTIWAY", "SHAPES", "addition", "batches", "cast", "contraction", "convolve", "copies", "dense",
    "examples", "gradients", "grouped", "hadamard", "indexing", "inner", "linear", "operations", "precision",
    "rounding", "rows", "saving", "size", "spec", "stacked", "tensors", "transpose", "tree", "uneven", "variants",
]  # fmt: skip
