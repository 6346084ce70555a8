"""Keys in block floating point, with channels of like size side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad._card import method
from polyad.cache.codec import Codec, Place, Turn
from polyad.formats import Format, Quantized
from polyad.quantize.methods.block_floating_point import KSORT, block_floating_point


@method(
    "codec",
    name="ksort_bfp",
    makes=Quantized,
    example={"bits": 4, "group": 4},
    exact={"bits": 8},
    needs={"keys"},
    papers=(KSORT,),
)
class KSortBFP(Codec):
    """Keys and values by token in blocks of ``group`` channels that share an exponent, keys sorted before.

    Each head's channels of keys are sorted by their root mean square, so that few blocks hold the outliers; queries
    are sorted alike and scores are those of the unsorted keys. A rotation mixes two channels of like size, which the
    order leaves side by side. ``value_bits`` (None: ``bits``) is for values; ``sort=False`` keeps the order. A number
    takes bits + 8 / group bits.

    Departs from the paper in measuring the size of rotated keys on text where it takes the norms of the rows of W_k,
    and in sorting what is stored where it permutes weights. With blocks as long as a head sorting changes nothing.

    >>> seen = {"keys": torch.diag(torch.tensor([1.0, 100.0, 2.0, 90.0]))}
    >>> codec, x = KSortBFP(Place(0, torch.nn.Identity(), 1, 1, seen), bits=4, group=2), torch.ones(1, 1, 1, 4)
    >>> codec.order.tolist(), codec.encode(x, x, x)[0].block
    ([[1, 3, 2, 0]], (1, 1, 1, 2))
    """

    def __init__(
        self, place: Place, *, bits: int = 4, value_bits: int | None = None, group: int = 32, sort: bool = True
    ) -> None:
        _check.at_least("group", group, 1)
        self.bits, self.value_bits, self.group = bits, bits if value_bits is None else value_bits, group
        size = place.need("keys").diagonal().reshape(place.key_heads, -1)
        index = torch.arange(size.shape[-1], device=size.device).expand_as(size)
        self.order = size.argsort(dim=-1, descending=True, stable=True) if sort else index
        self._back = self.order.argsort(dim=-1)

    def encode(self, keys: Tensor, values: Tensor, queries: Tensor) -> tuple[Quantized, Quantized]:  # noqa: ARG002
        ordered = _reorder_channels(keys, self.order)
        return (
            block_floating_point(ordered, self.bits, group=self.group),
            block_floating_point(values, self.value_bits, group=self.group),
        )

    def keys(self, stored: Format) -> Tensor:
        return _reorder_channels(stored.to_dense(), self._back)

    def scores(self, query: Tensor, stored: Format, turn: Turn | None) -> Tensor:  # noqa: ARG002
        return stored.linear(_reorder_channels(query, self.order))

    @property
    def bases(self) -> tuple[Tensor, ...]:
        return self.order, self._back


def _reorder_channels(x: Tensor, order: Tensor) -> Tensor:
    """Channels of x (batch, heads, rows, channels) in an order for each head."""
    return x.gather(-1, order.unsqueeze(1).expand(x.shape))
