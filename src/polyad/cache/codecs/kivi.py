"""Keys quantised by channel and values by token."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.cache.codec import Codec, Place
from polyad.formats import Quantized
from polyad.quantize import round_to_nearest


@method(
    "codec",
    name="kivi",
    makes=Quantized,
    example={"bits": 2, "group": 16},
    exact={"bits": 8, "group": 4},
    papers=(
        Paper(
            "Liu, Yuan, Jin, Zhong, Xu, Braverman, Chen, Hu",
            2024,
            "KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache",
            "arXiv:2402.02750",
        ),
    ),
)
class Kivi(Codec):
    """Keys that share a scale along ``group`` tokens of a channel, values along ``group`` channels of a token.

    The grid starts at the block's exact minimum. Each token is quantised once, when ``group`` of them have left the
    window. A stored number takes ``bits`` and 32 / group bits, for a scale in bfloat16 and a zero point in float16.

    Departs from the paper in that keys and values leave the window together.

    >>> codec = Kivi(bits=4, group=32)
    >>> x = torch.randn(1, 2, 64, 64)
    >>> keys, values = codec.encode(x, x, x)
    >>> keys.block, values.block
    ((1, 1, 32, 1), (1, 1, 1, 32))
    """

    def __init__(self, place: Place | None = None, *, bits: int = 2, group: int = 64) -> None:  # noqa: ARG002
        _check.bits(bits)
        _check.at_least("group", group, 1)
        self.bits, self.group, self.block = bits, group, group

    def encode(self, keys: Tensor, values: Tensor, queries: Tensor) -> tuple[Quantized, Quantized]:  # noqa: ARG002
        by_channel = round_to_nearest(keys, self.bits, group=(self.group, 1), zero_dtype=torch.float16)
        return by_channel, round_to_nearest(values, self.bits, group=self.group, zero_dtype=torch.float16)
