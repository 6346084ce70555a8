"""A transform of a weight's inputs, and a low-rank residual beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.adapters.methods.lora import LoRA
from polyad.formats import LowRank, TrainMatrix
from polyad.formats.structured.grid import balanced_divisor
from polyad.layers import Factors


@method(
    "adapter",
    makes=None,
    name="tlora_transform",
    example={"bond": 2, "rank": 2, "inner_alpha": True},
    papers=(
        Paper(
            "Tao, Takida, Murata, Zhao, Mitsufuji",
            2025,
            "Transformed Low-rank Adaptation via Tensor Decomposition and Its Applications to Text-to-image Models",
            "arXiv:2501.08727",
            handle="tlora-transform",
        ),
    ),
)
class TransformedLoRA(Adapter):
    """``W' = W T + s B A`` with T (in, in), a train of small cores that starts at the identity.

    A and B are those of ``LoRA``. in = Π ``modes`` (by default two,
    as near to √in as it divides); T has cores (1, m, m, bond) … (bond, m, m, 1) of
    about bond Σ m² numbers and is of full rank. A row of a linear layer costs its own product again, since its change
    is ``W (T x - x)``, and T's and LoRA's on top; other layers multiply ΔW out.

    The paper's T is a ring with one identity per bond index, in which all components would receive one gradient; here
    the ring is open, T starts as the first component, and the others start with a random first core and zeros after
    it, as LoRA does. The paper's residual may be a ring too; here it is a matrix of rank ``rank``.

    >>> adapter = TransformedLoRA((6, 8), rank=1)
    >>> sum(p.numel() for p in adapter.parameters())
    54
    """

    learning_rate = 0.0005

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        modes: Sequence[int] | None = None,
        bond: int = 2,
        rank: int = 8,
        alpha: float | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        n = matrix(shape)[1]
        modes = (balanced_divisor(n), n // balanced_divisor(n)) if modes is None else tuple(modes)
        if len(modes) < 2 or math.prod(modes) != n or min(modes) < 1:
            raise ValueError(f"modes={modes} must be at least two whole numbers whose product is the {n} columns")
        _check.rank(bond, n, "the number of columns", "bond")
        self.transform = Factors(TrainMatrix(_identity(modes, bond, generator)))
        self.residual = LoRA(shape, rank=rank, alpha=alpha, generator=generator)

    def update(self, base: Frozen) -> Tensor:
        weight = base.weight.flatten(1).to(self.residual.A.dtype)
        turned = self.transform().transpose().linear(weight)
        return turned - weight + self.residual.scale * (self.residual.B @ self.residual.A)

    def forward(self, x: Tensor, y: Tensor | None, base: Frozen) -> Tensor:
        if base.kind != "linear":
            return super().forward(x, y, base)
        low = LowRank(self.residual.B, self.residual.A)
        return base(base.apply_update(self.transform(), x) - x) + self.residual.scale * base.apply_update(low, x)

    def output(self, x: Tensor, base: Frozen) -> Tensor:
        if base.kind != "linear":
            return super().output(x, base)
        total = base.add_bias(base(base.apply_update(self.transform(), x)))
        low = LowRank(self.residual.B, self.residual.A)
        return base.add_update(total, low, x, self.residual.scale, 0.0)


def _identity(modes: Sequence[int], bond: int, generator: Generator | None) -> tuple[Tensor, ...]:
    """Cores of the identity: on the first bond index identities, on the others noise into zeros."""
    cores: list[Tensor] = []
    for i, m in enumerate(modes):
        before, after = (1 if i == 0 else bond), (1 if i == len(modes) - 1 else bond)
        core = torch.zeros(before, m, m, after)
        if i < len(modes) - 1:
            core[0] = torch.randn(m, m, after, generator=generator) / m**0.5
        for k in range(1, min(before, after)):
            core[k, :, :, k] = torch.eye(m)
        core[0, :, :, 0] = torch.eye(m)
        cores.append(core)
    cores[0], cores[-1] = cores[0].squeeze(0), cores[-1].squeeze(-1)
    return tuple(cores)
