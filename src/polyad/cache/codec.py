"""The interface of codecs, which store the keys and values that left the window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from polyad._arguments import check_keywords
from polyad.formats import Format

Turn = Callable[..., Tensor]
"""Rotates keys as the model does at their positions: those of a stored piece, from its token number ``at`` on, the
second argument, which is 0 if left out."""


@dataclass(frozen=True)
class Place:
    """The layer that a codec is made for: its number, its attention module and the statistics of its calibration.

    ``heads`` query heads share ``key_heads`` heads of keys and values. ``seen`` maps the names in the card's
    ``needs`` to tensors. A copy shares the module, and a pickle leaves it out.
    """

    layer: int
    module: nn.Module
    heads: int
    key_heads: int
    seen: dict[str, Tensor]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # nothing of it changes, and the module is the model's

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.layer, nn.Identity(), self.heads, self.key_heads, self.seen)

    def need(self, name: str) -> Tensor:
        """A statistic of the calibration, refused with a sentence where none was collected."""
        if name not in self.seen:
            raise ValueError(
                f"layer {self.layer} has no statistics {name!r}; calibrate with a text: calibrate='stdlib'"
            )
        return self.seen[name]


class Codec:
    """Encodes the keys and values of one layer's tokens, (batch, heads, tokens, channels) each, into two formats.

    The host keeps a window of recent tokens as they are, hands over what leaves it in multiples of ``block`` tokens,
    joins formats that can grow, and attends. A codec says at least ``encode``. Attention needs two linear maps of
    what is stored, ``q Kᵀ`` and ``p V``, which a format applies as it stands; a codec whose formats stand for
    something else than the keys and values (several heads side by side) gives ``keys``, ``values``, ``scores`` and
    ``mix`` as well.
    """

    block: int = 1
    """Tokens are encoded in multiples of this."""
    before_rotation: ClassVar[bool] = False
    """True for keys without their rotation; the host rotates again what ``keys`` gives back."""
    reads_queries: ClassVar[bool] = False
    """True for a codec to which queries matter. Some models attend with keys that they make from the cache's own;
    there the queries that ``encode`` gets are none (no tokens), and such a codec is refused."""
    layers: ClassVar[int] = 1
    """Codecs of several neighbouring layers: one codec is made for this many, and ``encode_layers`` sees them all."""

    def __new__(cls, *_: Any, **named: Any) -> Self:
        """A codec to be made; keywords that it does not have are refused in a sentence."""
        check_keywords(cls, named)
        return super().__new__(cls)

    def encode(self, keys: Tensor, values: Tensor, queries: Tensor) -> tuple[Format, Format]:
        """Formats of (batch, heads, tokens, channels). ``queries`` (batch, query heads, tokens, channels) are those
        of the call in which the tokens left, with the rotation that the keys have or lack."""
        raise NotImplementedError

    def encode_layers(
        self, entries: Sequence[tuple[Tensor, Tensor]], queries: Sequence[Tensor]
    ) -> list[tuple[Format, Format]]:
        """``encode`` for the layers that share this codec, first to last."""
        return [self.encode(*entry, query) for entry, query in zip(entries, queries, strict=True)]

    def keys(self, stored: Format) -> Tensor:
        """The keys (batch, heads, tokens, channels) of what ``encode`` made, in their dtype or a wider one."""
        return stored.to_dense()

    def values(self, stored: Format) -> Tensor:
        """The values (batch, heads, tokens, channels) of what ``encode`` made, in their dtype or a wider one."""
        return stored.to_dense()

    def scores(self, query: Tensor, stored: Format, turn: Turn | None) -> Tensor:
        """``query Kᵀ`` of shape (batch, heads, rows, tokens), for queries (batch, heads, rows, channels)."""
        return stored.linear(query) if turn is None else query @ turn(self.keys(stored)).mT.to(query.dtype)

    def mix(self, weights: Tensor, stored: Format) -> Tensor:
        """``weights V`` of shape (batch, heads, rows, channels), for weights (batch, heads, rows, tokens)."""
        return stored.combine(weights)

    def select(self, index: Tensor) -> None:
        """Keep these entries of the batch in what the codec itself remembers of the sequence."""

    @property
    def bases(self) -> tuple[Tensor, ...]:
        """Tensors that all sequences share, held by every format of this codec: counted once for a model."""
        return ()

    @property
    def state(self) -> tuple[Tensor, ...]:
        """Tensors that the codec remembers of these sequences; their bytes count."""
        return ()

    def __repr__(self) -> str:
        return type(self).__name__


Make = Callable[..., Codec]
"""Makes the codec of a layer from its ``Place``: a codec's class, or a ``functools.partial`` of it."""


def arguments(make: Any) -> Any:
    """The class behind a ``partial``."""
    return getattr(make, "func", make)
