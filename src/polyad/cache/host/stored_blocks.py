"""Pairs of formats that grow at their end, in buffers with room for more."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from polyad.formats import Format
from polyad.formats.batch_entries import batch_entries

SPARE = 8
"""Buffers grow by one part in this many, so that appending costs a constant number of copies a token."""


class Stored:
    """The formats of a layer's keys and values, (batch, heads, tokens, channels), in the order of the tokens.

    A pair is written behind the one before it where both formats can grow and share all that does not; otherwise it
    stands alone. ``block`` tokens cannot be parted.
    """

    def __init__(self, block: int) -> None:
        self._block = block
        self._runs: list[_Run] = []
        self._read: dict[int | None, list[tuple[int, Format, Format]]] = {}

    @property
    def length(self) -> int:
        return sum(run.length for run in self._runs)

    def append(self, keys: Format, values: Format) -> None:
        """Store the tokens that follow."""
        if not keys.shape[-2]:
            return
        self._read.clear()
        if self._runs and self._runs[-1].takes(keys, values):
            self._runs[-1].append(keys, values)
        else:
            self._runs.append(_Run(keys, values))

    def read(self, chunk: int | None = None) -> list[tuple[int, Format, Format]]:
        """The first token's number, and keys and values, of runs or of pieces of about ``chunk`` tokens of them.

        Views, which serve all steps of decoding until something is stored.
        """
        if chunk not in self._read:
            self._read[chunk] = list(self._pieces(chunk))
        return self._read[chunk]

    def _pieces(self, chunk: int | None) -> Iterator[tuple[int, Format, Format]]:
        first = 0
        for run in self._runs:
            step = run.length if chunk is None or not run.grows else max(1, chunk // self._block) * self._block
            for start in range(0, run.length, step):
                yield (first + start, *run.read(start, min(step, run.length - start)))
            first += run.length

    def floor(self, length: int) -> int:
        """The most tokens up to ``length`` that can be kept by ``crop``."""
        first = 0
        for run in self._runs:
            if first + run.length > length:
                return first + (length - first) // self._block * self._block if run.grows else first
            first += run.length
        return first

    def crop(self, length: int) -> None:
        """Keep the first tokens, a number that ``floor`` gives."""
        self._read.clear()
        while self._runs and self.length - self._runs[-1].length >= length:
            self._runs.pop()
        if self._runs:
            self._runs[-1].length -= self.length - length

    def select(self, index: Tensor, done: dict[int, tuple[Tensor, Tensor]] | None = None) -> None:
        """Keep these entries of the batch, in this order. ``done`` tells layers that share tensors of each, by id."""
        self._read.clear()
        for run in self._runs:
            run.select(index, {} if done is None else done)

    def nbytes(self, bases: tuple[Tensor, ...] = ()) -> int:
        """Bytes of all buffers, room for more included, but for the tensors ``bases``."""
        apart = {_storage(base) for base in bases}
        sizes = {_storage(t): _compact(t) for run in self._runs for t in run.tensors() if _storage(t) not in apart}
        return sum(sizes.values())

    def storages(self, bases: tuple[Tensor, ...] = ()) -> dict[int, int]:
        """The same by storage, so that what several layers share counts once."""
        apart = {_storage(base) for base in bases}
        return {_storage(t): _compact(t) for run in self._runs for t in run.tensors() if _storage(t) not in apart}


class _Run:
    """One pair of formats, or several that were joined."""

    def __init__(self, keys: Format, values: Format) -> None:
        self._like = keys, values
        self._growth = [format.growth() for format in self._like]
        self._buffers = [dict(format.tensors()) for format in self._like]
        self.length = keys.shape[-2]

    @property
    def grows(self) -> bool:
        return None not in self._growth

    def takes(self, keys: Format, values: Format) -> bool:
        """True if this pair can be written behind what is stored."""
        if not self.grows:
            return False
        for buffers, growth, like, piece in zip(self._buffers, self._growth, self._like, (keys, values), strict=True):
            assert growth is not None
            new = piece.tensors()
            if type(piece) is not type(like) or piece.growth() != growth:
                return False
            if any(covers == 0 and _storage(buffers[n]) != _storage(new[n]) for n, covers in growth.items()):
                return False
            if any(covers and new[n].shape[:-2] != buffers[n].shape[:-2] for n, covers in growth.items()):
                raise ValueError(
                    f"keys and values of a batch of shape {tuple(piece.shape[:-2])} cannot follow those of "
                    f"{tuple(like.shape[:-2])}; start a new cache"
                )
        return True

    def append(self, keys: Format, values: Format) -> None:
        for buffers, growth, piece in zip(self._buffers, self._growth, (keys, values), strict=True):
            assert growth is not None
            for name, tensor in piece.tensors().items():
                if growth[name]:
                    buffers[name] = write_rows(buffers[name], -(-self.length // growth[name]), tensor)
        self.length += keys.shape[-2]
        self._like = self.read(0, self.length)  # of the larger buffers, so that those before them are let go

    def read(self, start: int, count: int) -> tuple[Format, Format]:
        formats = []
        for like, buffers, growth in zip(self._like, self._buffers, self._growth, strict=True):
            if growth is None:
                formats.append(like)
                continue
            rows = {
                name: t.narrow(-2, start // growth[name], -(-count // growth[name])) if growth[name] else t
                for name, t in buffers.items()
            }
            formats.append(like.with_rows(rows, count))
        return formats[0], formats[1]

    def select(self, index: Tensor, done: dict[int, tuple[Tensor, Tensor]]) -> None:
        if not self.grows:
            self._like = self._like[0].select(index), self._like[1].select(index)
            self._buffers = [dict(format.tensors()) for format in self._like]
            return
        for buffers in self._buffers:
            for name, t in buffers.items():
                if id(t) not in done:
                    done[id(t)] = t, batch_entries(t, index)  # t too, so that its id is not another's meanwhile
                buffers[name] = done[id(t)][1]
        self._like = self.read(0, self.length)

    def tensors(self) -> Iterator[Tensor]:
        for buffers in self._buffers:
            yield from buffers.values()


def write_rows(buffer: Tensor, start: int, tensor: Tensor) -> Tensor:
    """``tensor`` written into the buffer from row ``start``; the buffer, or a larger one if there was no room."""
    needed = start + tensor.shape[-2]
    if needed > buffer.shape[-2]:
        larger = buffer.new_empty((*tensor.shape[:-2], needed + needed // SPARE, buffer.shape[-1]))
        larger.narrow(-2, 0, start).copy_(buffer.narrow(-2, 0, start))
        buffer = larger
    buffer.narrow(-2, start, tensor.shape[-2]).copy_(tensor)
    return buffer


def _storage(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()


def _compact(t: Tensor) -> int:
    """Bytes of the different numbers that a tensor shows; expanded dimensions count once."""
    sizes = [n for n, stride in zip(t.shape, t.stride(), strict=True) if stride]
    return int(torch.Size(sizes).numel()) * t.element_size()
