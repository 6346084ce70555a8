"""A grid of blocks, each with a low-rank update of its own."""

from __future__ import annotations

import torch
from torch import Generator, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen import Frozen
from polyad.adapters.lora import LoRA
from polyad.formats import Format, Network, Sum


@method(
    "adapter",
    name="gralora",
    example={"rank": 2, "blocks": 2, "whole": 1},
    papers=(
        Paper(
            "Jung, Ahn, Kim, Kim, Park",
            2025,
            "GraLoRA: Granular Low-Rank Adaptation for Parameter-Efficient Fine-Tuning",
            "arXiv:2505.20355",
            handle="gralora",
        ),
    ),
)
class GraLoRA(Adapter):
    """``ΔW`` cut into k x k ``blocks``, block (i, j) being ``alpha / rank · B_ij A_ij`` of rank ``rank`` / k.

    As many numbers as ``LoRA`` of this rank, rank (in + out), for an update of rank up to k · rank, and an input
    channel reaches the gradients of its own blocks alone. k must divide ``rank`` and both sides of the weight. A_ij
    is uniform within ±√(k / in), as LoRA of a block would draw it, and B_ij zero. ``whole`` adds a LoRA of that rank
    over all blocks (the paper's hybrid, for small ranks), with the same factor. Applied as two batched products, in
    2 rank (in + out) operations a row, as LoRA.

    >>> adapter = GraLoRA((6, 8), rank=2, blocks=2, generator=torch.Generator().manual_seed(0))
    >>> sum(p.numel() for p in adapter.parameters()), adapter.update(None).shape
    (28, (6, 8))
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rank: int = 8,
        blocks: int = 2,
        whole: int = 0,
        alpha: float | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        out, n = matrix(shape)
        if blocks < 1 or rank % blocks or out % blocks or n % blocks:
            raise ValueError(
                f"blocks={blocks} does not divide rank={rank} and both sides of ({out}, {n}), a weight of shape "
                f"{shape}; choose a common divisor"
            )
        own = _check.rank(rank // blocks, min(out, n) // blocks, f"the shorter side of a block of {shape}", "rank/k")
        drawn = 2 * torch.rand(blocks, own, blocks, n // blocks, generator=generator) - 1
        self.A = nn.Parameter(drawn * (blocks / n) ** 0.5)  # (column block, rank, row block, columns)
        self.B = nn.Parameter(torch.zeros(blocks, out // blocks, blocks, own))
        self.whole = LoRA(shape, rank=whole, generator=generator) if whole else None
        self.scale = 1.0 if alpha is None else alpha / rank

    def update(self, base: Frozen | None) -> Format:
        granular = Network("jlks,ksji->(jl)(ki)", (self.B, self.A))
        return granular if self.whole is None else Sum((granular, self.whole.update(base)))
