"""An update that is one thin matrix times its own transpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import torch
from torch import Generator, Tensor, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import LowRank


@method(
    "adapter",
    name="singlora",
    example={"rank": 2, "identity": False},
    papers=(
        Paper(
            "Bensaïd, Rotstein, Velich, Bensaïd, Kimmel",
            2025,
            "SingLoRA: Low Rank Adaptation Using a Single Matrix",
            "arXiv:2507.05566",
            handle="singlora",
        ),
    ),
)
class SingLoRA(Adapter):
    """``ΔW = u · alpha / rank · A A'ᵀ`` with one matrix A, so that no two factors can differ in scale.

    A (longer side, rank) has Kaiming's uniform distribution, within ±1/√fan, and A' is its first rows: for out ≥ in
    ΔW is A A'ᵀ with in of them, otherwise A' Aᵀ with out. The paper names no fan. Here it is the longer side, which
    the paper's own theorem asks for: A Aᵀ x stays of x's size however wide the layer is. ``draw="rank"`` takes the
    rank, as ``kaiming_uniform_`` does with a matrix of A's shape in public implementations: ΔW is then longer side /
    rank times as large once the ramp has risen. The square part of ΔW is symmetric and semidefinite of alpha's sign,
    and no training changes that. u is min(step / (``ramp`` · steps), 1), so that a run whose hooks are called starts
    at the base; without them u stays 1 and the start is not the base. u is saved. Trained are rank · max(in, out)
    numbers, half of LoRA's for a square weight; a row takes 2 rank (in + out) operations.

    >>> adapter = SingLoRA((6, 8), rank=2, generator=torch.Generator().manual_seed(0))
    >>> sum(p.numel() for p in adapter.parameters())
    16
    >>> SingLoRA.before_step([adapter], 0, 100)
    >>> float(adapter.update(None).to_dense().detach().norm())
    0.0
    """

    u: Tensor

    learning_rate = 0.0015

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rank: int = 8,
        alpha: float | None = None,
        ramp: float = 0.01,
        draw: Literal["side", "rank"] = "side",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.sides = matrix(shape)
        _check.rank(rank, min(self.sides), f"the shorter side of a weight of shape {shape}")
        if not 0 <= ramp <= 1:
            raise ValueError(f"ramp={ramp} is not a share of the steps; choose from 0, which is no ramp, to 1")
        if draw not in ("side", "rank"):
            raise ValueError(f"draw={draw!r} is unknown; choose 'side' or 'rank', the fan that sets A's variance")
        longer = max(self.sides)
        fan = longer if draw == "side" else rank
        self.A = nn.Parameter((2 * torch.rand(longer, rank, generator=generator) - 1) / fan**0.5)
        self.register_buffer("u", torch.ones(()))
        self.scale, self.ramp = (rank if alpha is None else alpha) / rank, ramp

    def update(self, base: Frozen | None) -> LowRank:  # noqa: ARG002
        out, n = self.sides
        return LowRank(self.u * self.A[..., :out, :], self.A[..., :n, :].mT)

    @classmethod
    def before_step(cls, adapters: Sequence[Self], step: int, total: int) -> None:
        for adapter in adapters:
            rising = adapter.ramp * total
            adapter.u.fill_(min(step / rising, 1.0) if rising else 1.0)
