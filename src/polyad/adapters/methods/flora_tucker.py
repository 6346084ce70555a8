"""An update that is a small core and one matrix for each mode of the weight."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import LowRank, Tucker


@method(
    "adapter",
    name="flora_tucker",
    example={"rank": 2},
    instead=("On small kernels at about equal numbers: `lora`, which takes the kernel as a matrix and loses less."),
    papers=(
        Paper(
            "Si, Wang, Yang, Xu, Li, Dai, Qiao, Yang, Shen",
            2024,
            "FLoRA: Low-Rank Core Space for N-dimension",
            "arXiv:2405.14739",
            handle="flora-tucker",
        ),
    ),
)
class FLoRATucker(Adapter):
    """``ΔW = alpha · G ×₁ U₁ ×₂ U₂ …`` with a core G and one matrix U_n (side n, rank n) for each side of the weight.

    ``rank`` is one for all sides, or (out, in, *kernel) of them; a rank above its side is the side. A kernel keeps
    its sides: Σ side · rank + Π rank numbers, against rank (out + in · prod(kernel)) of LoRA. G is zero and U_n are
    normal, of variance 1 / rank for the first side and 1 / side for the others, so that a step of G changes the
    output as much whatever the sides are. ``draw="kaiming"`` is the authors' code, of variance 1 / (2 rank_n) for
    every side: there a step of G is √(in · prod(kernel)) times as large, and they choose ``alpha`` anew, from 0.04 to
    4, for each model. Applied as a product of two
    matrices, U₁ and the rest (rank, in · prod(kernel)): 2 rank (out + in · prod(kernel)) operations a row, and the
    rest is put together at every call, which grows with its size alone.

    >>> adapter = FLoRATucker((6, 8, 3, 3), rank=2, generator=torch.Generator().manual_seed(0))
    >>> sum(p.numel() for p in adapter.parameters())
    56
    """

    learning_rate = 0.005

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rank: int | tuple[int, ...] = 8,
        alpha: float = 1.0,
        draw: Literal["unit", "kaiming"] = "unit",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        per_side = (rank,) * len(shape) if isinstance(rank, int) else tuple(rank)
        if len(per_side) != len(shape):
            raise ValueError(f"rank={rank} must be one number, or one for each of the {len(shape)} sides of {shape}")
        ranks = tuple(min(_check.rank(r, 2**31, "any side"), side) for r, side in zip(per_side, shape, strict=True))
        self.core = nn.Parameter(torch.zeros(ranks))
        if draw not in ("unit", "kaiming"):
            raise ValueError(f"draw={draw!r} is unknown; choose 'unit', or 'kaiming' for the authors' start")
        variances = (ranks[0], *shape[1:]) if draw == "unit" else tuple(2 * r for r in ranks)
        sizes = zip(shape, ranks, variances, strict=True)
        self.factors = nn.ParameterList(torch.randn(n, r, generator=generator) / v**0.5 for n, r, v in sizes)
        self.scale = alpha

    def tucker(self) -> Tucker:
        """ΔW without ``alpha``, of the weight's own shape."""
        return Tucker(self.core, tuple(self.factors))

    def update(self, base: Frozen | None) -> LowRank:  # noqa: ARG002
        inner = self.core
        for mode, factor in enumerate(list(self.factors)[1:], 1):
            inner = (inner.movedim(mode, -1) @ factor.mT).movedim(-1, mode)
        return LowRank(self.factors[0], inner.flatten(1))
