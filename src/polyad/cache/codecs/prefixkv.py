"""Budgets of tokens that let every layer keep the same share of its attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from polyad._card import Paper, method
from polyad.cache.codec import Codec, Make, Place
from polyad.cache.eviction import Eviction, largest
from polyad.formats import Dense


@method(
    "codec",
    name="prefixkv",
    makes=Dense,
    example={"keep": 0.5, "block": 8},
    exact={"keep": 1.0, "block": 4},
    instead=(
        "On text: `h2o`, or any eviction with the same share in every layer, which loses less for as many tokens."
    ),
    papers=(
        Paper(
            "Wang, Liu, Chen, Lin, Han, Ding",
            2024,
            "PrefixKV: Adaptive Prefix KV Cache is What Vision Instruction-Following Models Need for Efficient "
            "Generation",
            "arXiv:2412.03409",
            handle="prefixkv",
            adds="one bound on the cumulative attention for all layers, found by bisection",
        ),
    ),
)
class PrefixKV(Eviction):
    """The share ``keep`` of all layers' tokens, divided so that each layer keeps the same part of its attention.

    When the first tokens leave (the prompt), the attention that they received in a layer is averaged over heads,
    sorted, and summed from the largest on; bisection finds the largest bound such that the shortest prefixes that
    reach it fit the budget together. Each layer stores its prefix, the same tokens for all heads, and of tokens that
    leave later the same share. ``inner`` makes a codec that stores them otherwise; it is one for all layers.

    >>> shares([torch.tensor([0.7, 0.1, 0.1, 0.1]), torch.full((4,), 0.25)], 0.5)
    [0.25, 0.75]
    """

    looks: ClassVar[int] = 1 << 30
    layers: ClassVar[int] = 1 << 30

    def __init__(self, place: Place, *, keep: float = 0.2, block: int = 64, inner: Make | None = None) -> None:
        super().__init__(place, keep=keep, block=block, inner=inner)
        stateful = self.inner is not None and (type(self.inner).select is not Codec.select or self.inner.bases)
        if stateful or (self.inner is not None and self.inner.layers > 1):
            raise ValueError(
                f"inner={type(self.inner).__name__} knows its layer or its sequence, but prefixkv has one codec for "
                "all layers; choose one that does not, such as kivi"
            )
        self.shares: list[float] = []

    def choose(
        self,
        entries: Sequence[tuple[Tensor, Tensor]],  # noqa: ARG002
        scores: Sequence[Tensor],
        left: int,
        held: Sequence[int],
    ) -> list[Tensor]:
        together = [score.clamp(min=0).mean(1, keepdim=True) for score in scores]
        if not self.shares:
            self.shares = shares([score.mean((0, 1)) for score in together], self.keep)
        indices = []
        for score, share, stored, received in zip(together, self.shares, held, scores, strict=True):
            ranked = score.masked_fill(received[:, :1] < 0, -1)
            index = largest(ranked, self.due(share, score.shape[-1], left, stored))
            indices.append(index.expand(-1, received.shape[1], -1))
        return indices


def shares(importance: Sequence[Tensor], keep: float) -> list[float]:
    """The share of tokens of each layer, by importance (tokens,), that is the shortest prefix to a common bound."""
    ordered = [score.double().sort(descending=True).values for score in importance]
    sums = torch.stack([score.cumsum(0) / score.sum().clamp(min=1e-300) for score in ordered])
    budget = int(keep * sums.numel() + 1e-9)
    if budget == sums.numel():  # where rounding would end prefixes of tiny shares too early
        return [1.0] * len(sums)
    low, high = 0.0, 1.0
    for _ in range(60):
        bound = (low + high) / 2
        low, high = (bound, high) if int(_lengths(sums, bound).sum()) <= budget else (low, bound)
    counts = _lengths(sums, low)
    return [int(count) / sums.shape[-1] for count in counts]


def _lengths(sums: Tensor, bound: float) -> Tensor:
    """The tokens of the shortest prefixes whose sums reach the bound."""
    return ((sums < bound).sum(-1) + 1).clamp(max=sums.shape[-1]) if bound > 0 else torch.zeros(len(sums))
