"""The tokens that received most attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from polyad._card import Paper, method
from polyad.cache.codec import Make, Place
from polyad.cache.eviction import Eviction, largest
from polyad.formats import Dense


@method(
    "codec",
    name="h2o",
    makes=Dense,
    example={"keep": 0.5, "block": 8},
    exact={"keep": 1.0, "block": 4},
    papers=(
        Paper(
            "Zhang, Sheng, Zhou, Chen, Zheng, Cai, Song, Tian, Ré, Barrett, Wang, Chen",
            2023,
            "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models",
            "arXiv:2306.14048",
            adds="the attention that a token received so far says whether it will be needed",
        ),
    ),
)
class H2O(Eviction):
    """The share ``keep`` of the tokens that leave the window: those that received most attention, head by head.

    Attention is added up over all queries of the prompt and of decoding while the token is in the window, and over
    the query heads that share a key head. A token stored takes 2 d numbers and its place; ``inner`` makes the codec
    that stores it otherwise. Looking costs as much as the scores do, once more.

    Departs from the paper in its budget, a share of all tokens instead of a constant, so that what is stored is
    never chosen from again (and can be rounded once).

    >>> import torch
    >>> codec = H2O(Place(0, torch.nn.Identity(), 2, 1, {}), keep=0.5, block=4)
    >>> keys = values = torch.zeros(1, 1, 4, 8)
    >>> codec.choose([(keys, values)], [torch.tensor([[[0.5, 0.1, 0.2, 0.3]]])], 0, [0])[0]
    tensor([[[0, 3]]])
    """

    looks: ClassVar[int] = 1 << 30

    def __init__(self, place: Place, *, keep: float = 0.2, block: int = 64, inner: Make | None = None) -> None:
        super().__init__(place, keep=keep, block=block, inner=inner)

    def choose(
        self,
        entries: Sequence[tuple[Tensor, Tensor]],  # noqa: ARG002
        scores: Sequence[Tensor],
        left: int,
        held: Sequence[int],
    ) -> list[Tensor]:
        (score,) = scores
        return [largest(score, self.due(self.keep, score.shape[-1], left, held[0]))]
