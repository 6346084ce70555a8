"""The contract of a layer: attention, and whatever else a model is built of, whatever its idea is.

A check takes a card of kind ``layer``, whose ``example`` holds the layer's arguments (a function of nothing makes one
anew) and, beside them, what the contract needs: ``x``, the shape of an input, with tokens second where there are
tokens; ``table``, the width of the cosines and sines that it is called with; ``parameters``, how many numbers it
trains; ``held``, how many numbers a token takes in a cache; ``out``, the shape of the output where it is not x's.
What else a layer must do is read from what ``forward`` takes: a mask, positions, a cache.

>>> from polyad._card import card
>>> for check in CHECKS:
...     check(card("grouped_attention"))
"""

from polyad.testing.attention._module import gradients, precision, rows, shape, sizes, storage
from polyad.testing.attention._subject import call, input_of, layer_of
from polyad.testing.attention._tokens import causality, masks, pieces

CHECKS = (shape, sizes, pieces, causality, masks, gradients, rows, precision, storage)
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "call", "causality", "gradients", "input_of", "layer_of", "masks", "pieces", "precision", "rows",
    "shape", "sizes", "storage",
]  # fmt: skip
