"""Codecs that store some tokens and let others go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from polyad import _check
from polyad.cache.codec import Codec, Make, Place, Turn
from polyad.formats import Dense, Format


class Eviction(Codec):
    """Says which of the tokens that leave the window are stored; they are stored as they are, or as ``inner`` does.

    ``keep`` is the share of them. They leave ``block`` at a time (more where ``inner`` rounds many together), so that
    there is something to choose from. A token that was stored stays. A method gives ``choose``.
    """

    reads_queries: ClassVar[bool] = True
    looks: ClassVar[int] = 0
    """From how many of a call's last queries the attention is needed; 0 for none."""

    def __init__(self, place: Place, *, keep: float, block: int, inner: Make | None = None) -> None:
        if not 0 < keep <= 1:
            raise ValueError(f"keep={keep} must be a share of the tokens, above 0 and up to 1")
        _check.at_least("block", block, 1)
        self.place, self.keep = place, keep
        self.inner: Codec | None = None if inner is None else inner(place)
        if self.inner is not None and (self.inner.before_rotation or isinstance(self.inner, Eviction)):
            raise ValueError(
                f"inner={type(self.inner).__name__} stores keys before their rotation or evicts itself, so that it "
                "cannot store what an eviction keeps; choose one that stores keys as they are, such as kivi"
            )
        self.unit = 1 if self.inner is None else self.inner.block
        """Tokens are stored in multiples of this."""
        self.block = max(block, math.ceil(self.unit / keep))

    def choose(
        self,
        entries: Sequence[tuple[Tensor, Tensor]],
        scores: Sequence[Tensor],
        left: int,
        held: Sequence[int],
    ) -> list[Tensor]:
        """For each layer that shares this codec, which tokens to store: (batch, heads, chosen), int64, rising.

        ``entries`` are the keys and values (batch, heads, tokens, channels) of those about to leave, views that are
        not to be written to, and ``scores`` (batch, heads, tokens) the attention that they received, 0 without
        ``looks``; -1 marks padding. ``left`` tokens left before, of which ``held`` are stored in each layer.
        """
        raise NotImplementedError

    def due(self, share: float, tokens: int, left: int, held: int) -> int:
        """The number of leaving tokens to store for a layer to hold this share of all that left."""
        units = math.floor((share * (left + tokens) - held) / self.unit + 1e-6)
        return min(tokens // self.unit, max(0, units)) * self.unit

    def encode(self, keys: Tensor, values: Tensor, queries: Tensor) -> tuple[Format, Format]:
        if self.inner is None or not keys.shape[-2]:
            return Dense(keys), Dense(values)
        return self.inner.encode(keys, values, queries)

    def keys(self, stored: Format) -> Tensor:
        return super().keys(stored) if self.inner is None else self.inner.keys(stored)

    def values(self, stored: Format) -> Tensor:
        return super().values(stored) if self.inner is None else self.inner.values(stored)

    def scores(self, query: Tensor, stored: Format, turn: Turn | None) -> Tensor:
        return (super() if self.inner is None else self.inner).scores(query, stored, turn)

    def mix(self, weights: Tensor, stored: Format) -> Tensor:
        return (super() if self.inner is None else self.inner).mix(weights, stored)

    def select(self, index: Tensor) -> None:
        if self.inner is not None:
            self.inner.select(index)

    @property
    def bases(self) -> tuple[Tensor, ...]:
        return () if self.inner is None else self.inner.bases

    @property
    def state(self) -> tuple[Tensor, ...]:
        return () if self.inner is None else self.inner.state


def largest(scores: Tensor, count: int) -> Tensor:
    """The places of the ``count`` largest along the last dimension, rising; of equals the first."""
    return scores.argsort(dim=-1, descending=True, stable=True)[..., :count].sort(-1).values
