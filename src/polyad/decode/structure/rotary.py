"""Reading of a rotation: the model's own module makes the cosines and sines of all positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from polyad.decode.outline import NoLoopError, Rotary
from polyad.decode.structure.nearness import same
from polyad.decode.structure.trace import TOKENS, Call, Trace
from polyad.models.attention import ReducedAttention

GROWS = ("dynamic", "longrope")
"""Kinds of rotary embeddings whose frequencies depend on the length of the call."""


def rotaries(trace: Trace, call: Call, width: int, module: nn.Module) -> Iterator[Rotary | None]:
    """The rotations that queries and keys of this width may have had, none among them."""
    pair = call.kwargs.get("position_embeddings")
    if isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(x, Tensor) for x in pair):
        source = _source(trace, pair)
        pairs = module.pairs if isinstance(module, ReducedAttention) else None
        for kind, of_width in _kinds(pair[0].shape[-1], width if pairs is None else 2 * pairs.shape[1], pairs):
            name = (*source.name, kind, of_width, None if pairs is None else pairs.data_ptr())
            table, stated = _tables(source.table, kind, of_width, pairs), source.table if pairs is None else None
            yield Rotary(table, _partner(kind, of_width, pair[0]), name, stated)
    yield None


def rotate_heads(rotary: Rotary, x: Tensor, heads: int) -> Tensor:
    """Rotate x (1, tokens, heads, width) at positions from 0 on."""
    cos, sin = (heads_of(t, heads).to(x.dtype) for t in rotary.table(torch.arange(x.shape[1], device=x.device)))
    return x * cos + x.index_select(-1, rotary.partner.to(x.device)) * sin


def heads_of(table: Tensor, heads: int) -> Tensor:
    """Cosines or sines (tokens, heads or 1, width): those of a key head for each query head of its group."""
    if table.ndim == 2:
        return table.unsqueeze(1)
    return table.repeat_interleave(heads // table.shape[1], 1)


class _Source:
    """The module that made a pair of cosines and sines, called again for any positions."""

    def __init__(self, module: nn.Module, call: Call, index: int) -> None:
        self._module, self._call = module, call
        self.name: tuple[object, ...] = (id(module), index)

    def table(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (tokens, channels)."""
        args = [_replaced(a, positions) for a in self._call.args]
        kwargs = {name: _replaced(a, positions) for name, a in self._call.kwargs.items()}
        with torch.no_grad():
            cos, sin = self._module(*args, **kwargs)
        return _of_text(cos), _of_text(sin)


def _replaced(value: Any, positions: Tensor) -> Any:
    """Other positions in the place of those of the trace; models that see pictures have them three times."""
    if not isinstance(value, Tensor) or value.is_floating_point() or value.shape[-1:] != (TOKENS,):
        return value
    counted = torch.arange(TOKENS, device=value.device).expand(value.shape)
    return positions.expand(*value.shape[:-1], -1) if torch.equal(value, counted.to(value.dtype)) else value


def _of_text(table: Tensor) -> Tensor:
    """Cosines or sines (tokens, channels) of the first row, and of the first of the three dimensions of pictures."""
    return table.reshape(-1, *table.shape[-2:])[0]


def _source(trace: Trace, pair: Any) -> _Source:
    for module, calls in trace.calls.items():
        for index, call in enumerate(calls):
            output = call.output
            if isinstance(output, tuple) and len(output) == 2 and output[0] is pair[0] and output[1] is pair[1]:
                kind = str(getattr(module, "rope_type", "") or "")
                stated = str(getattr(trace.config, "rope_parameters", None) or "")
                if any(word in kind or f"'{word}'" in stated for word in GROWS):
                    raise NoLoopError("its rotation depends on the length of the text")
                source = _Source(module, call, index)
                again = source.table(torch.arange(TOKENS + 1, device=pair[0].device))
                if not all(same(x[:TOKENS], _of_text(y)) for x, y in zip(again, pair, strict=True)):
                    raise NoLoopError("its rotation is not the same twice")
                if any(len(x) != TOKENS + 1 for x in again):
                    raise NoLoopError("its rotation does not follow from the positions of tokens")
                return source
    raise NoLoopError("its cosines and sines are made by no module of their own")


def _kinds(channels: int, width: int, pairs: Tensor | None) -> Iterator[tuple[str, int]]:
    """Names of the ways to rotate, with the width of a head: cosines for all channels, or for half of them."""
    if pairs is not None:
        yield "halves", width
        return
    if channels <= width:
        yield from (("halves", width), ("neighbours", width), ("neighbours of halves", width))
    if 2 * channels <= width:
        yield from (("half table", width), ("neighbours, half table", width))


def _tables(
    table: Callable[[Tensor], tuple[Tensor, Tensor]], kind: str, width: int, pairs: Tensor | None
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The function that gives cosines and signed sines (tokens, [key heads,] width) of positions (tokens,)."""

    def at(positions: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = table(positions)
        if "half table" in kind:
            cos, sin = torch.cat((cos, cos), -1), torch.cat((sin, sin), -1)
        half = cos.shape[-1] // 2
        if pairs is not None:
            both = torch.cat((pairs, pairs + half), -1)
            cos, sin, half = cos[:, both], sin[:, both], pairs.shape[1]
        if kind in ("neighbours of halves", "neighbours, half table"):
            cos, sin = (t[..., :half].repeat_interleave(2, -1) for t in (cos, sin))
        signs = torch.ones_like(sin[0])
        signs[..., 0::2] = -1
        if kind in ("halves", "half table"):
            signs = torch.ones_like(sin[0])
            signs[..., :half] = -1
        rest = [*cos.shape[:-1], width - cos.shape[-1]]
        return torch.cat((cos, cos.new_ones(rest)), -1), torch.cat((sin * signs, sin.new_zeros(rest)), -1)

    return at


def _partner(kind: str, width: int, cos: Tensor) -> Tensor:
    """The number of the channel with which each is rotated."""
    turned = min(width, (2 if "half table" in kind else 1) * cos.shape[-1])
    index = torch.arange(width, device=cos.device)
    if kind in ("halves", "half table"):
        index[:turned] = index[:turned].roll(turned // 2)
    else:
        index[:turned] = index[:turned].view(-1, 2).flip(-1).flatten()
    return index
