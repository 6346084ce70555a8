"""Keys and values in orthogonal bases of each head, ordered so that any prefix serves."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.cache.codec import Place
from polyad.cache.codecs.latents import Basis, Latents, diagonal_blocks, leading_directions
from polyad.formats import LowRank

MATRYOSHKA = Paper(
    "Lin, Zeng, Xiao, Kou, Hou, Gao, Zhang, Deng", 2024,
    "MatryoshkaKV: Adaptive KV Compression via Trainable Orthogonal Projection", "arXiv:2410.14731",
    handle="matryoshkakv", adds="orthogonal bases that are trained at random ranks, and ranks of each head",
)  # fmt: skip


@method(
    "codec",
    name="matryoshkakv",
    makes=LowRank,
    example={"rank": 2},
    exact={"rank": 8},
    needs={"keys", "key_mean", "values", "value_mean"},
    papers=(MATRYOSHKA,),
)
class MatryoshkaKV(Latents):
    """Keys after rotation and values in the first ``rank`` and ``value_rank`` of each head's orthogonal coordinates.

    Both are centred by what calibration saw. The bases are those that ``matryoshka_bases`` trained, if it did, else
    the principal ones. Ranks are one number for a layer or one for each head, and where left out those of
    ``matryoshka_ranks``; unequal ones are stored as they are, without padding.

    Departs from the paper in adding the mean of the keys back: the window's exact keys have theirs, so that softmax
    does not take it away.

    >>> spread = torch.block_diag(torch.diag(torch.tensor([1.0, 9.0])), torch.eye(2))
    >>> seen = {"keys": spread, "values": spread, "key_mean": torch.zeros(4), "value_mean": torch.zeros(4)}
    >>> codec, x = MatryoshkaKV(Place(0, torch.nn.Identity(), 2, 2, seen), rank=(1, 2)), torch.ones(1, 2, 3, 2)
    >>> keys, _ = codec.encode(x, x, x)
    >>> keys.left.shape, codec.keys(keys)[0, :, 0].tolist()
    (torch.Size([1, 1, 3, 3]), [[0.0, 1.0], [1.0, 1.0]])
    """

    def __init__(
        self,
        place: Place,
        *,
        rank: int | Sequence[int] | None = None,
        value_rank: int | Sequence[int] | None = None,
    ) -> None:
        values = rank if value_rank is None else value_rank
        super().__init__(_basis(place, "key", rank), _basis(place, "value", values), place.key_heads)


def _basis(place: Place, name: str, given: int | Sequence[int] | None) -> Basis:
    heads = place.key_heads
    mean = place.need(f"{name}_mean")
    if f"{name}_basis" not in place.seen:
        place.need(f"{name}s")
    whole = principal_basis(place.seen, name, heads)
    chosen = place.need(f"{name}_ranks").tolist() if given is None else given
    ranks = [chosen] * heads if isinstance(chosen, int) else list(chosen)
    if len(ranks) != heads:
        raise ValueError(
            f"ranks {tuple(ranks)} must give one for each of the {heads} key heads of layer {place.layer}"
        )
    for r in ranks:
        _check.rank(r, whole.shape[-1], f"the channels of a head of layer {place.layer}")
    if len(set(ranks)) == 1:
        u = whole[..., : ranks[0]]
        return Basis(u, u.mT, mean=mean.reshape(heads, 1, -1))
    u = torch.block_diag(*(head[:, :r] for head, r in zip(whole, ranks, strict=True)))[None]
    return Basis(u, u.mT, mean=mean.reshape(1, 1, -1))


def principal_basis(seen: dict[str, Tensor], name: str, heads: int) -> Tensor:
    """The bases (heads, d, d) of a layer's keys or values, the most important direction first."""
    if f"{name}_basis" in seen:
        return seen[f"{name}_basis"]
    mean = seen[f"{name}_mean"]
    blocks = diagonal_blocks(seen[f"{name}s"] - torch.outer(mean, mean), heads)
    return leading_directions(blocks, blocks.shape[-1])
