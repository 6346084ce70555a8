"""Keys quantised by channel and values by token, with the recent tokens exact."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.cache.growing import Growing
from polyad.quantize import round_to_nearest


@method(
    "codec",
    name="kivi",
    example={"bits": 2},
    papers=(
        Paper(
            "Liu, Yuan, Jin, Zhong, Xu, Braverman, Chen, Hu",
            2024,
            "KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache",
            "arXiv:2402.02750",
        ),
    ),
)
class Kivi:
    """The cache of one layer: keys (*batch, tokens, channels) and values of the same batch shape.

    Keys share a scale along ``group`` tokens of a channel, values along ``group`` channels of a token; the grid
    starts at the block's exact minimum. The last ``window`` to ``window + group - 1`` tokens stay exact and each
    token is quantised once, when ``group`` of them have left the window; ``bits=None`` keeps all exact.
    A stored number takes ``bits`` and 32 / group bits, for a scale in bfloat16 and a zero point in float16.
    Reading restores all tokens, in their dtype.

    Departs from the paper in that keys and values leave the window together.

    >>> keys, values = torch.randn(1, 2, 200, 64), torch.randn(1, 2, 200, 64)
    >>> cache = Kivi(bits=4, window=32)
    >>> cache.append(keys, values)
    >>> cache.length, cache.exact, bool(torch.equal(cache.read()[0][..., -72:, :], keys[..., -72:, :]))
    (200, 72, True)
    """

    def __init__(self, bits: int | None = 2, *, group: int = 64, window: int = 128) -> None:
        if bits is not None:
            _check.bits(bits)
        if group < 1 or window < 0:
            raise ValueError(f"group={group} must be at least 1 and window={window} at least 0")
        self.bits, self.group, self.window = bits, group, window
        self._stored = Growing(), Growing()
        self._tail: tuple[Tensor, Tensor] | None = None

    @property
    def exact(self) -> int:
        """How many of the last tokens are stored as they came."""
        return 0 if self._tail is None else self._tail[0].shape[-2]

    @property
    def length(self) -> int:
        return self._stored[0].length + self.exact

    @property
    def nbytes(self) -> int:
        """Bytes allocated: codes, scales and zero points, room for more, and the exact tokens."""
        tail = 0 if self._tail is None else sum(t.numel() * t.element_size() for t in self._tail)
        return tail + sum(stored.nbytes for stored in self._stored)

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Store the tokens that follow; what has left the window is quantised."""
        if keys.shape[:-1] != values.shape[:-1]:
            raise ValueError(
                f"keys of shape {tuple(keys.shape)} and values of shape {tuple(values.shape)} "
                "must agree in all but their last dimension"
            )
        if self._tail is not None:
            keys, values = torch.cat([self._tail[0], keys], -2), torch.cat([self._tail[1], values], -2)
        done = 0 if self.bits is None else max(0, keys.shape[-2] - self.window) // self.group * self.group
        if done:
            self._quantize(keys[..., :done, :], values[..., :done, :])
            keys, values = keys[..., done:, :].clone(), values[..., done:, :].clone()  # lets the rest go
        self._tail = keys, values

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens."""
        if self._tail is None:
            raise ValueError("nothing is stored yet; append keys and values first")
        keys, values = (
            tail if (past := stored.read()) is None else torch.cat([past.to_dense(), tail], -2)
            for stored, tail in zip(self._stored, self._tail, strict=True)
        )
        return keys, values

    def crop(self, length: int) -> None:
        """Keep the first ``length`` tokens. A block that is cut goes on as exact tokens, with the error it had."""
        if not 0 <= length <= self.length:
            raise ValueError(f"length={length} must be from 0 to the {self.length} tokens stored")
        if self._tail is None:
            return
        whole = min(length, self._stored[0].length) // self.group * self.group
        keys, values = (t[..., whole:length, :].clone() for t in self.read())
        for stored in self._stored:
            stored.crop(whole)
        self._tail = keys, values

    def select(self, index: Tensor) -> None:
        """Keep these entries of the batch, in this order; an entry may occur several times."""
        if self._tail is None:
            return
        for stored in self._stored:
            stored.select(index)
        self._tail = self._tail[0][index], self._tail[1][index]

    def _quantize(self, keys: Tensor, values: Tensor) -> None:
        assert self.bits is not None
        for stored, x, group in zip(self._stored, (keys, values), ((self.group, 1), self.group), strict=True):
            stored.append(round_to_nearest(x, self.bits, group=group, zero_dtype=torch.float16))
