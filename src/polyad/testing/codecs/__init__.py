"""The contract of a codec: what every way of storing keys and values owes, whatever its idea is.

A check takes a card. The codec is made with the card's ``example``, and with ``exact`` in its place where the card
states one: arguments with which it loses nothing, or what eight bits lose. Both are for layers of two key heads of
eight channels, two layers, and blocks of up to sixteen tokens; what calibration must see (``needs``) is observed on
random decoders of transformers that are made here. Codecs that let tokens go are held to more: those that stay are
exact, in their places, and as many as ``keep`` says.

>>> from polyad._card import card
>>> for check in CHECKS:
...     check(card("kivi"))
"""

from polyad.testing.codecs._changes import adoption, cuts, selections
from polyad.testing.codecs._counting import byte_count, growth, reachable_tensors
from polyad.testing.codecs._decoding import chunks, generation, half_precision
from polyad.testing.codecs._encoding import attention, permutations, places, restoration
from polyad.testing.codecs._evicting import choices, kept_tokens, later_tokens, left_padding
from polyad.testing.codecs._sizes import arguments, precision, refinement, truncation

CHECKS = (
    arguments, restoration, places, attention, permutations, refinement, truncation, precision,
    generation, half_precision, chunks, cuts, selections, adoption, byte_count, growth,
    kept_tokens, later_tokens, left_padding, choices,
)  # fmt: skip
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "adoption", "arguments", "attention", "byte_count", "choices", "chunks", "cuts", "generation", "growth",
    "half_precision", "kept_tokens", "later_tokens", "left_padding", "permutations", "places", "precision",
    "reachable_tensors", "refinement", "restoration", "selections", "truncation",
]  # fmt: skip
