"""A small trained matrix between the leading singular vectors of a weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import LowRank
from polyad.linalg import truncated_svd

LORA_XS_PAPER = Paper(
    "Bałazy, Banaei, Aberer, Tabor", 2024,
    "LoRA-XS: Low-Rank Adaptation with Extremely Small Number of Parameters", "arXiv:2405.17604",
    handle="lora-xs", adds="a trained square matrix between frozen singular factors of the weight",
)  # fmt: skip


@method("adapter", name="lora_xs", example={"rank": 2}, needs={"weight"}, papers=(LORA_XS_PAPER,))
class LoRAXS(Adapter):
    """``ΔW = U Σ R Vᵀ`` of the weight's ``rank`` leading singular triples, with R (rank, rank) trained from zero.

    The factors U Σ (out, rank) and Vᵀ (rank, in) are frozen and worked out again on loading; rank² numbers are
    trained. A row costs 2 rank (in + out) operations. The paper starts R at small normal numbers.

    >>> sum(p.numel() for p in LoRAXS((6, 8), rank=2).parameters())
    4
    """

    A: Tensor
    B: Tensor

    def __init__(self, shape: tuple[int, ...], *, rank: int = 8) -> None:
        super().__init__()
        out, n = matrix(shape)
        self.rank = _check.rank(rank, min(out, n), f"the shorter side of a weight of shape {shape}")
        self.register_buffer("A", torch.zeros(rank, n), persistent=False)
        self.register_buffer("B", torch.zeros(out, rank), persistent=False)
        self.R = nn.Parameter(torch.zeros(rank, rank))

    def derive(self, base: Frozen) -> None:
        u, s, v = truncated_svd(base.weight.flatten(1).to(torch.float64), self.rank)
        self.B.copy_(u * s)
        self.A.copy_(v)

    def update(self, base: Frozen) -> LowRank:  # noqa: ARG002
        return LowRank(self.B @ self.R, self.A)
