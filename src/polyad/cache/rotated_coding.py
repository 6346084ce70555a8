"""Transform coding of keys with their rotation, in codes that sums read where they lie."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from polyad._card import method
from polyad.cache.codec import Place
from polyad.cache.latents import Latents
from polyad.cache.transform_coding import HUANG, basis, filled, needed
from polyad.formats import Product

CHOICES = (0, 2, 4)
"""Bits that a coordinate may take: those of which torch sums packed rows."""
TAIL = 32
"""Bits of a step and a zero point."""


@method(
    "codec",
    name="rotated_coding",
    makes=Product,
    example={"rate": 3.0},
    needs={"keys", "key_mean", "key_fisher", "values", "value_mean", "value_fisher"},
    papers=(HUANG,),
)
class RotatedCoding(Latents):
    """As ``TransformCoding``, but for decoding speed: nothing is restored or rotated to attend.

    Keys are held as they are rotated, each head in principal coordinates of its own, rounded by channel over
    ``group`` tokens about the mean of these; values of all heads together, rounded by token. A query is turned into
    the coordinates once, and torch's sums of packed rows read the codes. The price is in the coordinates: rotation
    mixes what is correlated, 0, 2 and 4 bits are all the choice, and a step and a zero point take four bytes where
    ``TransformCoding`` spends one. ``rate`` is the number of bits for each number of keys and values, steps included;
    ``rotated_filling`` spends it over all layers. With neither, all coordinates are kept as they are.

    Use it with ``sinks``, and calibrate on windows about as long as what will be read: the slow rotations mix more,
    the longer it is.

    >>> import torch
    >>> eye, mean = torch.eye(16), torch.zeros(16)
    >>> seen = {"keys": eye, "values": eye, "key_fisher": eye, "value_fisher": eye}
    >>> seen |= {"key_mean": mean, "value_mean": mean}
    >>> codec = RotatedCoding(Place(0, torch.nn.Identity(), 2, 2, seen), rate=8.0, group=16)
    >>> x = torch.linspace(-1, 1, 256).reshape(1, 2, 16, 8)
    >>> keys, _ = codec.encode(x, x, x)
    >>> keys.factors[0].nbytes, bool((codec.keys(keys) - x).abs().max() < 0.1)
    (192, True)
    """

    def __init__(self, place: Place, *, rate: float | None = None, group: int = 64) -> None:
        if group < 1:
            raise ValueError(f"group={group} must be at least 1")
        seen = place.seen | needed(place)
        if rate is not None and "key_bits" not in seen:
            (seen,) = rotated_filling([seen], rate, place.key_heads, group=group)
        keys = basis(seen, "key", place.key_heads, group=group, readable=True)
        super().__init__(keys, basis(seen, "value", by_token=True, readable=True), place.key_heads)


def rotated_filling(
    seen: Sequence[dict[str, Tensor]], rate: float, heads: int, *, group: int = 64
) -> list[dict[str, Tensor]]:
    """What was seen, with the bits of all layers' coordinates for ``RotatedCoding`` with so many key ``heads``.

    The sum of all coordinates' costs is made least, for ``rate`` bits for each number, steps and zero points
    included.

    >>> import torch
    >>> eye, mean = torch.eye(16), torch.zeros(16)
    >>> seen = [{"keys": eye * s, "values": eye, "key_mean": mean, "value_mean": mean} for s in (1.0, 100.0)]
    >>> seen = [{**s, "key_fisher": eye, "value_fisher": eye} for s in seen]
    >>> [s["key_bits"].tolist() for s in rotated_filling(seen, 5.0, heads=2)]
    [[2, 2, 2, 2, 2, 2, 2, 2], [4, 4, 4, 4, 4, 4, 4, 4]]
    """
    spent = TAIL * (len(CHOICES) - 1)
    keys = TAIL / group
    return filled(seen, rate, CHOICES, {"key": heads, "value": 1}, spent / 2, {"key": keys, "value": 0.0})
