"""Keys and values both quantised by token, in groups of channels."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.cache.codec import Codec, Place
from polyad.formats import Quantized
from polyad.quantize import round_to_nearest

FLEXGEN = Paper(
    "Sheng, Zheng, Yuan, Li, Ryabinin, Fu, Xie, Chen, Barrett, Gonzalez, Liang, Ré, Stoica, Zhang", 2023,
    "FlexGen: High-Throughput Generative Inference of Large Language Models with a Single GPU", "arXiv:2303.06865",
    handle="flexgen", adds="keys and values rounded to the nearest point of a grid for each group of channels",
)  # fmt: skip


@method(
    "codec",
    name="flexgen",
    makes=Quantized,
    example={"bits": 4, "group": 8},
    exact={"bits": 8, "group": 4},
    papers=(FLEXGEN,),
)
class FlexGen(Codec):
    """Keys and values that share a scale along ``group`` channels of a token.

    Each token is quantised once, when it leaves the window. A stored number takes ``bits`` and 32 / group bits, for a
    scale in bfloat16 and a zero point in float16.

    >>> codec = FlexGen(bits=4, group=32)
    >>> x = torch.randn(1, 2, 5, 64)
    >>> keys, values = codec.encode(x, x, x)
    >>> keys.block, values.block
    ((1, 1, 1, 32), (1, 1, 1, 32))
    """

    def __init__(self, place: Place | None = None, *, bits: int = 4, group: int = 64) -> None:  # noqa: ARG002
        _check.bits(bits)
        if group < 1:
            raise ValueError(f"group={group} must be at least 1")
        self.bits, self.group = bits, group

    def encode(self, keys: Tensor, values: Tensor, queries: Tensor) -> tuple[Quantized, Quantized]:  # noqa: ARG002
        return self._round(keys), self._round(values)

    def _round(self, x: Tensor) -> Quantized:
        """The nearest points of the grids of x (batch, heads, tokens, channels)."""
        return round_to_nearest(x, self.bits, group=self.group, zero_dtype=torch.float16)
