"""A low-rank update whose blocks share one down-projection."""

from __future__ import annotations

import torch
from torch import Generator, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.adapters.methods.lora import LoRA
from polyad.formats import LowRank


@method(
    "adapter",
    name="block_lora",
    example={"rank": 4, "blocks": 2},
    papers=(
        Paper(
            "Zhou, Wang, Guo, Wen, Xue, Wei",
            2025,
            "One Head Eight Arms: Block Matrix based Low Rank Adaptation for CLIP-based Few-Shot Learning",
            "arXiv:2501.16720",
            handle="block-lora",
        ),
    ),
)
class BlockLoRA(LoRA):
    """``ΔW = alpha / rank · (B₁ + … + B_n) A`` with B = [B₁ … B_n] (out, rank) and one A (rank / n, in) for all.

    The columns of B and the rows of A are cut into ``blocks`` n, and the rows' blocks are one. Trained are
    rank (out + in / n) numbers; the rank of ΔW is at most rank / n, so that this is a LoRA of that rank whose B is
    written as a sum and moves n times as far at one learning rate. Starts as ``LoRA``. A row costs
    2 rank / n (in + out) operations, and a call the sum, out · rank.

    >>> adapter = BlockLoRA((6, 8), rank=4, blocks=2, generator=torch.Generator().manual_seed(0))
    >>> sum(p.numel() for p in adapter.parameters()), adapter.update(None).rank
    (40, 2)
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rank: int = 8,
        blocks: int = 2,
        alpha: float | None = None,
        generator: Generator | None = None,
    ) -> None:
        if blocks < 1 or rank % blocks:
            raise ValueError(f"blocks={blocks} does not divide rank={rank}; choose a divisor of the rank")
        most = blocks * min(matrix(shape))
        _check.rank(rank, most, f"{blocks} times the shorter side of a weight of shape {shape}")
        super().__init__(shape, rank=rank // blocks, generator=generator)
        self.blocks, self.scale = blocks, 1.0 if alpha is None else alpha / rank
        self.B = nn.Parameter(torch.zeros(shape[0], rank))

    def update(self, base: Frozen | None) -> LowRank:  # noqa: ARG002
        return LowRank(self.B.unflatten(1, (self.blocks, -1)).sum(1), self.A)
