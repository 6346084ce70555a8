"""The contract of the modules that hold a format: functions that take a format and assert a property each.

Each builds a Factors, or a Linear, an Embedding and a Conv, on copies of the format, a matrix of an even number of
columns in float32.

>>> from polyad.formats import LowRank
>>> for check in STATE:
...     check(LowRank(torch.ones(4, 2), torch.ones(2, 6)))
"""

from polyad.testing._no_densifying import no_densifying
from polyad.testing.layers._modules import example
from polyad.testing.layers._running import autocast, compiling, exporting, forward
from polyad.testing.layers._state import copies, exact, loading, names, ties, training

STATE = (names, exact, copies, loading, ties, training)
"""The checks of what a module holds."""

RUNNING = (forward, autocast, exporting, compiling)
"""The checks of how it runs; the last two take about a second a format."""

CHECKS = (*STATE, *RUNNING)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "RUNNING", "STATE", "autocast", "compiling", "copies", "exact", "example", "exporting", "forward",
    "loading", "names", "no_densifying", "ties", "training",
]  # fmt: skip
