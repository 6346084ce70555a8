"""The contract of an adapter: what every method owes on every kind of layer, whatever its idea is.

A check takes a card and a kind of layer. The adapter is made with the card's ``example``, in which ``of`` (a tuple of
kinds) limits the layers that the method is for, ``identity=False`` says that it does not start at the base, and
``inner_alpha=True`` that its ``alpha`` acts within what is not linear, so that twice of it is not twice the change.

>>> from polyad._card import card
>>> for check in CHECKS:
...     check(card("lora"), "linear")
"""

from polyad.testing.adapters._changes import merge, rows, several, start, sums
from polyad.testing.adapters._sizes import alpha, sizes
from polyad.testing.adapters._storage import refusals, storage
from polyad.testing.adapters._subject import LAYERS, Experts, layers, model_with_adapters, move
from polyad.testing.adapters._training import compilation, dropout, gradients, learning, no_dense_update

CHECKS = (
    start, learning, alpha, sizes, merge, sums, several, rows, storage, gradients, dropout, no_dense_update,
    compilation, refusals,
)  # fmt: skip
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "LAYERS", "Experts", "alpha", "compilation", "dropout", "gradients", "layers", "learning", "merge",
    "model_with_adapters", "move", "no_dense_update", "refusals", "rows", "several", "sizes", "start", "storage",
    "sums",
]  # fmt: skip
