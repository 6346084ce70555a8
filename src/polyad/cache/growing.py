"""A quantised tensor that grows at its end."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from polyad.formats import Quantized


class Growing:
    """Quantised blocks of shape (*batch, tokens, channels), appended along the tokens into preallocated buffers.

    Every piece has a whole number of blocks of tokens, the same scheme and the same batch shape. Buffers grow by an
    eighth, so that appending costs a constant number of copies a token.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._like: Quantized | None = None
        self.length = 0

    def append(self, piece: Quantized) -> None:
        """Write the piece's codes, scales and zero points behind what is there."""
        if self._like is None:
            self._buffers = {
                name: t.new_empty((*t.shape[:-2], 0, t.shape[-1])) for name, t in piece.tensors().items()
            }
        self._like = piece
        for name, tensor in piece.tensors().items():
            start, more = self._rows(name), tensor.shape[-2]
            buffer = self._buffers[name]
            if start + more > buffer.shape[-2]:
                spare = start + more + (start + more) // 8 - buffer.shape[-2]
                room = buffer.new_empty((*buffer.shape[:-2], spare, buffer.shape[-1]))
                self._buffers[name] = buffer = torch.cat([buffer, room], -2)
            buffer.narrow(-2, start, more).copy_(tensor)
        self.length += piece.shape[-2]

    def read(self) -> Quantized | None:
        """All tokens, as views of the buffers; None before the first."""
        if self._like is None or self.length == 0:
            return None
        held = {name: buffer.narrow(-2, 0, self._rows(name)) for name, buffer in self._buffers.items()}
        batch = held["codes"].shape[:-2]
        return dataclasses.replace(self._like, **held, size=(*batch, self.length, self._like.size[-1]))

    def crop(self, length: int) -> None:
        """Keep the first tokens, a whole number of blocks. The buffers stay."""
        self.length = length

    def select(self, index: Tensor) -> None:
        """Keep these entries of the first batch dimension, in this order."""
        self._buffers = {name: buffer[index] for name, buffer in self._buffers.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, what is preallocated included."""
        return sum(buffer.numel() * buffer.element_size() for buffer in self._buffers.values())

    def _rows(self, name: str) -> int:
        """Rows of this tensor that are in use: one a token, or one a block of tokens."""
        assert self._like is not None
        return self.length if name == "codes" else self.length // self._like.block[-2]
