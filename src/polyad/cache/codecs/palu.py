"""Keys and values as low-rank projections of groups of heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.cache.codec import Place
from polyad.cache.codecs.latents import Basis, Latents, diagonal_blocks, leading_directions
from polyad.formats import LowRank
from polyad.linalg import walsh_hadamard

PALU = Paper(
    "Chang, Lin, Lin, Chen, Hu, Wang, Huang, Ceze, Abdelfattah, Wu", 2024,
    "Palu: Compressing KV-Cache with Low-Rank Projection", "arXiv:2407.21118", handle="palu",
    adds="bases of groups of heads, ranks by Fisher information, a Hadamard rotation of what is rounded",
)  # fmt: skip


@method(
    "codec",
    name="palu",
    makes=LowRank,
    example={"rank": 4},
    exact={"rank": 16},
    needs={"keys", "values", "key_fisher", "value_fisher"},
    papers=(PALU,),
)
class Palu(Latents):
    """Keys before rotation and values in ``rank`` and ``value_rank`` coordinates for each group of ``heads`` heads.

    The paper factors the projections W ≈ L R by an SVD that is whitened by the inputs x and stores R x. That basis
    spans the leading eigenvectors of the second moment of W x, so it is found from keys and values themselves, with
    no Cholesky factor. ``heads`` is 1, a number that divides the key heads, or None for all together. ``bits`` rounds
    coordinates by token over ``group`` of them, after a Walsh-Hadamard rotation folded into the basis, over the
    largest power of two that divides the rank. Ranks left out are those that ``fisher_ranks`` put into what was seen.

    Departs from the paper in that values are projected after W and not by folded weights: the cache is the same.

    >>> seen = {name: torch.diag(torch.arange(1.0, 9)) for name in ("keys", "values")}
    >>> codec, x = Palu(Place(0, torch.nn.Identity(), 2, 2, seen), rank=1, heads=1), torch.ones(1, 2, 5, 4)
    >>> codec.encode(x, x, x)[0].left.shape, codec.values(codec.encode(x, x, x)[1])[0, 1, 0].tolist()
    (torch.Size([1, 2, 5, 1]), [0.0, 0.0, 0.0, 1.0])
    """

    before_rotation = True

    def __init__(
        self,
        place: Place,
        *,
        rank: int | None = None,
        value_rank: int | None = None,
        heads: int | None = None,
        bits: int | None = None,
        group: int = 64,
    ) -> None:
        together = place.key_heads if heads is None else heads
        if together < 1 or place.key_heads % together:
            raise ValueError(f"heads={heads} must divide the {place.key_heads} key heads of layer {place.layer}")
        bases = []
        for name, size in (("key", rank), ("value", rank if value_rank is None else value_rank)):
            blocks = diagonal_blocks(place.need(f"{name}s"), place.key_heads // together)
            chosen = int(place.need(f"{name}_rank")) if size is None else size
            what = f"the {blocks.shape[-1]} channels of {together} of {place.key_heads} heads of layer {place.layer}"
            u = leading_directions(
                blocks, _check.rank(chosen, blocks.shape[-1], what, "rank" if name == "key" else "value_rank")
            )
            if bits is not None:
                u = mix_neighbours(u)
            bases.append(Basis(u, u.mT, bits, group, by_token=True))
        super().__init__(bases[0], bases[1], place.key_heads)


def mix_neighbours(u: Tensor) -> Tensor:
    """Columns (…, n, r) after an orthogonal Walsh-Hadamard rotation of neighbours, which spreads outliers evenly."""
    width = u.shape[-1] & -u.shape[-1]
    blocks = u.mT.unflatten(-2, (-1, width))
    return (walsh_hadamard(blocks) / width**0.5).flatten(-3, -2).mT


def fisher_ranks(
    seen: Sequence[dict[str, Tensor]],
    information: Sequence[dict[str, Tensor]],
    keep: float,
    *,
    groups: int = 1,
    unit: int = 1,
) -> list[dict[str, Tensor]]:
    """Add ranks for ``Palu`` in proportion to Fisher information, for ``groups`` groups of heads, to the statistics.

    Ranks of keys and values of all layers share one budget, ``keep`` of their channels, up to multiples of ``unit``.
    A rank's share is that of the root of the mean information of its layer's keys or values; where full rank caps it,
    the others get the rest. Departs from the paper in taking the information of keys and values, not of the weights
    that make them, so that it serves every architecture. Every layer keeps at least one ``unit``. Raises for ``keep``
    outside (0, 1]. ``information`` is what ``fisher`` finds.

    >>> found = [{"key_fisher": s * torch.eye(4), "value_fisher": torch.eye(4)} for s in (1.0, 9.0)]
    >>> [(int(s["key_rank"]), int(s["value_rank"])) for s in fisher_ranks([{}, {}], found, 0.5)]
    [(2, 1), (4, 1)]
    """
    _check.share("keep", keep)
    matrices = [layer[f"{name}_fisher"] for layer in information for name in ("key", "value")]
    full = [m.shape[-1] // groups for m in matrices]
    weights = [float(m.diagonal().double().mean().sqrt()) for m in matrices]
    ranks = [max(unit, int(r) // unit * unit) for r in _shares(weights, full, keep * sum(full))]
    order = sorted(range(len(ranks)), key=lambda i: -weights[i])
    for i in order:  # what rounding left over
        step = min(unit, full[i] - ranks[i])
        if step and sum(ranks) + step <= keep * sum(full):
            ranks[i] += step
    pairs = zip(ranks[::2], ranks[1::2], strict=True)
    return [
        {**layer, "key_rank": torch.tensor(k), "value_rank": torch.tensor(v)}
        for layer, (k, v) in zip(seen, pairs, strict=True)
    ]


def _shares(weights: list[float], full: list[int], total: float) -> list[float]:
    """``total`` in proportion to the weights, none above its cap."""
    capped: set[int] = set()
    while True:
        rest = total - sum(full[i] for i in capped)
        scale = rest / max(sum(w for i, w in enumerate(weights) if i not in capped), 1e-300)
        over = {i for i, w in enumerate(weights) if i not in capped and w * scale > full[i]}
        if not over:
            return [
                float(n) if i in capped else w * scale for i, (w, n) in enumerate(zip(weights, full, strict=True))
            ]
        capped |= over
