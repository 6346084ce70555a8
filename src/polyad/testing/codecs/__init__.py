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

from polyad.testing.codecs._counting import counting, growing, reachable_tensors
from polyad.testing.codecs._decoding import adopting, chunks, cropping, generating, half_precision, selecting
from polyad.testing.codecs._encoding import attending, permuting, placing, restoring
from polyad.testing.codecs._evicting import choices, keeping, later_tokens, padding
from polyad.testing.codecs._sizes import arguments, precision, refining

CHECKS = (
    arguments, restoring, placing, attending, permuting, refining, precision,
    generating, half_precision, chunks, cropping, selecting, adopting, counting, growing,
    keeping, later_tokens, padding, choices,
)  # fmt: skip
"""Every check of this suite, to parametrise over; ``check.__name__`` is the property."""

__all__ = [
    "CHECKS", "adopting", "arguments", "attending", "choices", "chunks", "counting", "cropping", "generating",
    "growing", "half_precision", "keeping", "later_tokens", "padding", "permuting", "placing", "precision",
    "reachable_tensors", "refining", "restoring", "selecting",
]  # fmt: skip
