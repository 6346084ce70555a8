"""The first tokens and a window of the last."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.cache.codec import Place
from polyad.cache.eviction import Eviction
from polyad.formats import Dense


@method(
    "codec",
    name="streaming_llm",
    makes=Dense,
    example={"sinks": 2},
    papers=(
        Paper(
            "Xiao, Tian, Chen, Han, Lewis",
            2023,
            "Efficient Streaming Language Models with Attention Sinks",
            "arXiv:2309.17453",
            adds="attention gathers on the first tokens, which have to stay",
        ),
    ),
)
class StreamingLLM(Eviction):
    """The first ``sinks`` tokens of each sequence, and the host's window; all others are let go.

    Padding on the left is passed over, as far as the first block of ``sinks`` tokens that leaves has others. Holds a
    constant number of tokens. Departs from the paper in that tokens keep the positions at which they came: contexts
    beyond those that the model was trained for stay out of its reach.

    >>> import torch
    >>> codec = StreamingLLM(Place(0, torch.nn.Identity(), 2, 1, {}), sinks=2)
    >>> entries, scores = [(torch.zeros(1, 1, 4, 8),) * 2], [torch.zeros(1, 1, 4)]
    >>> codec.choose(entries, scores, 0, [0])[0], codec.choose(entries, scores, 4, [2])[0].shape
    (tensor([[[0, 1]]]), torch.Size([1, 1, 0]))
    """

    def __init__(self, place: Place, *, sinks: int = 4) -> None:
        _check.at_least("sinks", sinks, 0)
        super().__init__(place, keep=1.0, block=max(1, sinks))
        self.sinks = sinks

    def choose(
        self,
        entries: Sequence[tuple[Tensor, Tensor]],  # noqa: ARG002
        scores: Sequence[Tensor],
        left: int,
        held: Sequence[int],
    ) -> list[Tensor]:
        (score,) = scores
        order = (score < 0).int().argsort(dim=-1, stable=True)
        return [order[..., : 0 if left or held[0] else self.sinks].sort(-1).values]
