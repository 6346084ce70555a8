"""An update that is a product of two thin matrices."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Generator, Tensor, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import LowRank


@method(
    "adapter",
    makes=None,
    name="lora",
    example={"rank": 2},
    instead=(
        "LoRA+'s sixteen times higher rate for B where the rate is tuned anyway: one rate for both factors is as "
        "fast at its best."
    ),
    papers=(
        Paper(
            "Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen",
            2022,
            "LoRA: Low-Rank Adaptation of Large Language Models",
            "arXiv:2106.09685",
        ),
        Paper(
            "Kalajdzievski",
            2023,
            "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA",
            "arXiv:2312.03732",
            adds='scaling="root"',
        ),
        Paper(
            "Hayou, Ghosh, Yu",
            2024,
            "LoRA+: Efficient Low Rank Adaptation of Large Models",
            "arXiv:2402.12354",
            handle="loraplus",
            adds="the learning rate of B above that of A, which Adapters.groups gives",
        ),
        Paper(
            "Zhu, Greenewald, Nadjahi, Sáez de Ocáriz Borde, Gabrielsson, Choshen, Ghassemi, Yurochkin, Solomon",
            2024,
            "Asymmetry in Low-Rank Adapters of Foundation Models",
            "arXiv:2402.16842",
            handle="lora-asymmetry",
            adds='trained="B" and trained="A"',
        ),
    ),
)
class LoRA(Adapter):
    """``ΔW = alpha / rank · B A`` with A (rank, in) drawn and B (out, rank) zero, so that nothing changes at first.

    A is uniform within ±1/√in, as the authors' code draws it. ``scaling="root"`` divides by √rank instead, which
    keeps large ranks learning. ``alpha`` is ``rank`` by default, so that the factor is 1 (√rank for ``"root"``).
    A row costs 2 rank (in + out) operations. A kernel (out, in, *kernel) is the matrix (out, in · prod(kernel)).

    ``trained="B"`` leaves A at random orthonormal rows and trains out · rank numbers; ``trained="A"`` leaves B at
    random orthonormal columns and starts A at zero. What is frozen follows from the generator, and is not stored.
    With both trained, ``beyond`` lets ``rank`` exceed the shorter side, as files of other libraries do.
    LoRA+ is ``Adapters.groups(name, lr, {"*.B": 16})`` in place of one rate: B learns so many times as fast as A.

    >>> adapter = LoRA((6, 8), rank=2, generator=torch.Generator().manual_seed(0))
    >>> sum(p.numel() for p in adapter.parameters()), float(adapter.B.norm())
    (28, 0.0)
    """

    A: Tensor
    B: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rank: int = 8,
        alpha: float | None = None,
        scaling: Literal["rank", "root"] = "rank",
        trained: Literal["both", "A", "B"] = "both",
        beyond: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        out, n = matrix(shape)
        most = 2**31 if beyond and trained == "both" else min(out, n)
        _check.rank(rank, most, f"the shorter side of a weight of shape {shape}")
        if scaling not in ("rank", "root"):
            raise ValueError(
                f"scaling={scaling!r} is unknown; choose 'rank' for alpha / rank or 'root' for alpha / √rank"
            )
        if trained == "both":
            self.A = nn.Parameter((2 * torch.rand(rank, n, generator=generator) - 1) / n**0.5)
            self.B = nn.Parameter(torch.zeros(out, rank))
        elif trained == "B":
            self.register_buffer("A", _orthonormal(n, rank, generator).mT.contiguous(), persistent=False)
            self.B = nn.Parameter(torch.zeros(out, rank))
        elif trained == "A":
            self.A = nn.Parameter(torch.zeros(rank, n))
            self.register_buffer("B", _orthonormal(out, rank, generator), persistent=False)
        else:
            raise ValueError(f"trained={trained!r} is no factor; choose 'both', 'A' or 'B'")
        self.scale = (rank if alpha is None else alpha) / (rank if scaling == "rank" else rank**0.5)
        if not abs(self.scale) < torch.finfo(torch.float32).max:
            raise ValueError(f"alpha={alpha} of rank {rank} is beyond float32; give a number such as {2.0 * rank}")

    def update(self, base: Frozen) -> LowRank:  # noqa: ARG002
        return LowRank(self.B, self.A)


def _orthonormal(n: int, rank: int, generator: Generator | None) -> Tensor:
    """Random orthonormal columns (n, rank)."""
    return torch.linalg.qr(torch.randn(n, rank, generator=generator)).Q
