"""Keys and values as they came, in buffers with room for more."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad.cache.host.stored_blocks import written


class Recent:
    """The last tokens of a layer, exact: keys and values of shape (batch, heads, tokens, channels).

    Appending writes behind what is there and reading gives views, so that a step of decoding copies its own token
    and no other.
    """

    def __init__(self) -> None:
        self._buffers: tuple[Tensor, Tensor] | None = None
        self._start = self._stop = 0

    @property
    def length(self) -> int:
        return self._stop - self._start

    @property
    def nbytes(self) -> int:
        return sum(b.numel() * b.element_size() for b in self._buffers or ())

    def append(self, keys: Tensor, values: Tensor, dtype: torch.dtype | None = None) -> None:
        """Write the tokens that follow, in ``dtype`` where one is given."""
        if self._buffers is None:
            self._buffers = keys.to(dtype or keys.dtype, copy=True), values.to(dtype or values.dtype, copy=True)
            self._stop = keys.shape[-2]
            return
        self._check(keys, values, dtype)
        needed = self._stop + keys.shape[-2]
        if self._start and needed > self._buffers[0].shape[-2]:  # what left at the front makes the room
            self._buffers = self.read()
            self._start, self._stop = 0, self.length
        first, second = self._buffers
        self._buffers = written(first, self._stop, keys), written(second, self._stop, values)
        self._stop += keys.shape[-2]

    def read(self, count: int | None = None) -> tuple[Tensor, Tensor]:
        """Views of all tokens, or of the first ``count``."""
        assert self._buffers is not None
        length = self.length if count is None else count
        first, second = self._buffers
        return first.narrow(-2, self._start, length), second.narrow(-2, self._start, length)

    def drop(self, count: int) -> None:
        """Let the first tokens go. Large buffers that they leave empty go too."""
        self._start += count
        if self._start > 2 * self.length:
            keys, values = self.read()
            self._buffers = keys.clone(), values.clone()
            self._start, self._stop = 0, self.length

    def crop(self, length: int) -> None:
        """Keep the first tokens."""
        self._stop = self._start + length

    def replace(self, keys: Tensor, values: Tensor) -> None:
        """Hold these tokens and no others."""
        self._buffers, self._start, self._stop = (keys, values), 0, keys.shape[-2]

    def select(self, index: Tensor) -> None:
        """Keep these entries of the batch, in this order."""
        if self._buffers is not None:
            self._buffers = self._buffers[0][index], self._buffers[1][index]

    def _check(self, keys: Tensor, values: Tensor, dtype: torch.dtype | None) -> None:
        assert self._buffers is not None
        for name, new, buffer in zip(("keys", "values"), (keys, values), self._buffers, strict=True):
            if new.shape[:2] != buffer.shape[:2] or new.shape[-1] != buffer.shape[-1]:
                raise ValueError(
                    f"{name} of shape {tuple(new.shape)} cannot follow those of batch {buffer.shape[0]}, "
                    f"{buffer.shape[1]} heads and {buffer.shape[-1]} channels that the cache holds; start a new cache"
                )
            new_dtype = dtype or new.dtype
            if new_dtype != buffer.dtype:
                raise ValueError(f"{name} of {new_dtype} cannot follow those of {buffer.dtype}; start a new cache")
