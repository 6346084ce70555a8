"""Keys in the coordinates that scores need most."""

from __future__ import annotations

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.cache.codec import Place
from polyad.cache.codecs.latents import Basis, Latents, diagonal_blocks, leading_directions
from polyad.formats import LowRank
from polyad.linalg.metric import roots


@method(
    "codec",
    name="metric",
    makes=LowRank,
    example={"rank": 4},
    exact={"rank": 16},
    needs={"keys", "metric", "values"},
    papers=(
        Paper(
            "Eckart, Young", 1936, "The approximation of one matrix by another of lower rank",
            "doi:10.1007/BF02288367", adds="the optimum, here in the norm in which the queries measure keys",
        ),
    ),
)  # fmt: skip
class Metric(Latents):
    """Keys of all heads together in the ``rank`` coordinates that make the expected error of the scores least.

    For keys k of all H heads side by side, before rotation, with second moment C, and queries whose second moment
    over all relative rotations is the block diagonal M, the error of the scores is E[(k - k̂)ᵀ M (k - k̂)]. It is
    least for k̂ = M^-½ U Uᵀ M^½ k with U the leading eigenvectors of M^½ C M^½. Values keep ``value_rank`` coordinates
    of their principal ones (None: all), over all heads as well. ``bits`` and ``value_bits`` round the coordinates:
    those of keys by channel over ``group`` tokens, those of values by token.

    A token takes rank + value_rank numbers, against 2 H d.

    >>> place = Place(
    ...     0,
    ...     torch.nn.Identity(),
    ...     2,
    ...     2,
    ...     {
    ...         "keys": torch.eye(8),
    ...         "values": torch.eye(8),
    ...         "metric": torch.diag(torch.arange(1.0, 5)).expand(2, 4, 4),
    ...     },
    ... )
    >>> codec, x = Metric(place, rank=2), torch.ones(1, 2, 1, 4)
    >>> codec.keys(codec.encode(x, x, x)[0])[0, :, 0].tolist()  # the channel that queries weigh most, of each head
    [[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]]
    """

    before_rotation = True

    def __init__(
        self,
        place: Place,
        *,
        rank: int,
        value_rank: int | None = None,
        bits: int | None = None,
        value_bits: int | None = None,
        group: int = 64,
    ) -> None:
        keys, values, metric = place.need("keys"), place.need("values"), place.need("metric")
        _check.rank(rank, keys.shape[-1], f"the {place.key_heads} key heads of layer {place.layer} together")
        root, inverse = roots(torch.block_diag(*metric))
        u = leading_directions((root @ keys @ root)[None], rank)
        into, out = root @ u, u.mT @ inverse
        super().__init__(
            Basis(into, out, bits, group),
            values_basis(values, place, value_rank, value_bits, group),
            place.key_heads,
        )


def values_basis(values: Tensor, place: Place, rank: int | None, bits: int | None, group: int) -> Basis:
    """The principal coordinates of all heads' values, or with no rank the values themselves, rounded by token."""
    if rank is None:
        blocks = diagonal_blocks(values, place.key_heads)
        eye = torch.eye(blocks.shape[-1], dtype=values.dtype, device=values.device).expand(len(blocks), -1, -1)
        return Basis(eye, eye, bits, group, by_token=True)
    _check.rank(rank, values.shape[-1], f"the {place.key_heads} heads of values of layer {place.layer}", "value_rank")
    u = leading_directions(values[None], rank)
    return Basis(u, u.mT, bits, group, by_token=True)
