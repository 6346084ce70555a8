"""Latent attention whose cache is cut over processes: each attends with its part of the latent, outputs are added."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from polyad._card import Paper, method
from polyad.attention.methods.latent import LatentAttention
from polyad.attention.module import Attend, AttentionModule
from polyad.linalg import walsh_hadamard

TPLA = Paper(
    "Tang, Meng, Tang, Wang, Yin, Sun, Zhang", 2025,
    "TPLA: Tensor Parallel Latent Attention for Efficient Disaggregated Prefill & Decode Inference",
    "arXiv:2508.15881", "tpla", "latents cut over ranks, with a softmax of their own, after an orthogonal mixing",
)  # fmt: skip


@method(
    "layer",
    name="tpla",
    papers=(TPLA,),
    example={
        "whole": lambda: LatentAttention(24, 4, rank=10, nope=4, rope=4, value=5), "rank": 1, "world": 2,
        "x": (2, 30, 24), "table": 4, "parameters": 24 * 4 * 8 + 24 * 14 + 4 * 9 * 10 + 4 * 5 * 24, "held": 5 + 4,
    },
)  # fmt: skip
class ShardedLatentAttention(AttentionModule):
    """Rank ``rank`` of ``world`` of latent attention: a slice of the latent, and the whole rotary key.

    The score of a slice is ``scale · q_slice · c_slice + q_rope · k_rope`` and each rank has its own softmax; the
    sum of the outputs over ranks takes the place of the whole one's. The softmax makes this approximate, for world
    > 1. An orthogonal matrix on the latent (``mix_latent``) before the cut changes nothing in the whole layer and the
    error of the parts: after a Hadamard transform each slice holds about 1 / world of every score (``scale`` is
    ``world``), after a PCA the first slice holds nearly all of it and the others little of the values (``scale`` 1).
    Bytes of the cache a rank: rope + rank / world numbers a token. The paper's norm on the latent is not here, since
    ``LatentAttention`` has none.

    ``forward`` gives this rank's output and adds nothing up: with torch.distributed, ``all_reduce`` it.

    >>> layer = LatentAttention(16, 4, rank=8, nope=4, rope=2, value=4)
    >>> table = torch.ones(1, 5, 2), torch.zeros(1, 5, 2)
    >>> parts = [ShardedLatentAttention(layer, rank, 2) for rank in range(2)]
    >>> sum(part(torch.ones(1, 5, 16), table)[0] for part in parts).shape
    torch.Size([1, 5, 16])
    """

    def __init__(self, whole: LatentAttention, rank: int, world: int, *, scale: float | None = None) -> None:
        super().__init__(scaling=whole.scaling, layer_idx=whole.layer_idx)
        if world < 1 or whole.rank % world or not 0 <= rank < world:
            raise ValueError(f"rank={rank} of world={world} has no slice of a latent of {whole.rank} numbers")
        self.whole, self.width = whole, whole.rank // world
        self.slice = slice(rank * self.width, (rank + 1) * self.width)
        self.scale = float(world) if scale is None else scale
        self.key_heads = 1

    def project(
        self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, Attend]:
        """Rotated queries, and the rotary key and the slice of the latent that are cached."""
        nope, query, latent, key = self.whole.projections(hidden_states, position_embeddings)
        absorbed = nope @ self.whole.key_up[..., self.slice]
        rope = key.shape[-1]

        def attend(query: Tensor, keys: Tensor, latents: Tensor, mask: Tensor | None) -> Tensor:
            keys, latents = keys[..., :rope], latents[..., : self.width]
            scores = (self.scale * (absorbed @ latents.mT) + query[..., :rope] @ keys.mT) * self.scaling
            return (_mask_scores(scores, mask).softmax(-1) @ latents).transpose(1, 2)

        return query, key, latent[..., self.slice], attend

    def output(self, out: Tensor) -> Tensor:
        """This rank's addend of the output (batch, tokens, width)."""
        values = torch.einsum("bthr,hvr->bthv", out, self.whole.value_up[..., self.slice])
        return self.whole.o_proj(values.flatten(2))


def mix_latent(
    whole: LatentAttention, how: Literal["hadamard", "pca"], moment: Tensor | None = None
) -> LatentAttention:
    """Put an orthogonal matrix on the latent of a layer, in place; ``moment`` (rank, rank) is E[c cᵀ] for PCA.

    The Hadamard matrix is normalised and its input's signs are drawn from a fixed seed; the latent's width must be a
    power of two for it.
    """
    r = whole.rank
    weight = whole.kv_down.weight
    if how == "pca":
        if moment is None or moment.shape != (r, r):
            raise ValueError(f"how='pca' needs moment, E[c cᵀ] of the latent, of shape ({r}, {r})")
        turn = torch.linalg.eigh(moment.double())[1].flip(1).mT
    elif how == "hadamard":
        if r & (r - 1):
            raise ValueError(f"a latent of {r} numbers has no Hadamard matrix here; its width must be a power of two")
        signs = torch.randint(0, 2, (r,), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
        turn = walsh_hadamard(torch.diag(signs.double())) / r**0.5
    else:
        raise ValueError(f"how={how!r} is not known; choose 'hadamard' or 'pca'")
    turn = turn.to(weight)
    with torch.no_grad():
        weight[:r] = turn @ weight[:r]
        if whole.kv_down.bias is not None:
            whole.kv_down.bias[:r] = turn @ whole.kv_down.bias[:r]
        whole.key_up.copy_(whole.key_up @ turn.mT)
        whole.value_up.copy_(whole.value_up @ turn.mT)
    return whole


def _mask_scores(scores: Tensor, mask: Tensor | None) -> Tensor:
    tokens, length = scores.shape[-2:]
    if mask is None:
        mask = torch.ones(tokens, length, dtype=torch.bool, device=scores.device).tril(length - tokens)
    least = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask, least) if mask.dtype == torch.bool else scores + mask
