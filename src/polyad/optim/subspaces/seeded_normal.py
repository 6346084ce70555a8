"""Normal numbers drawn from a seed, which is all that is kept of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from polyad._card import Paper, method
from polyad.optim.transform import State

STRIDE = 1_000_003
"""From one seed to the next."""


@method(
    "subspace",
    name="seeded_normal",
    example={"rank": 3, "orthonormal": False},
    papers=(
        Paper(
            "Hao, Cao, Mou", 2024, "Flora: Low-Rank Adapters Are Secretly Gradient Compressors", "arXiv:2402.03293",
            adds="the projection that is drawn again from its seed wherever it is needed",
        ),
        Paper(
            "Zhu, Zhang, Cong, Liu, Park, Chandra, Long, Pan, Wang, Lee", 2024,
            "APOLLO: SGD-like Memory, AdamW-level Performance", "arXiv:2412.05270",
            adds="scales of channels that are read off such a projection",
        ),
    ),
)  # fmt: skip
@dataclass(frozen=True)
class SeededNormal:
    """A matrix (n, rank) of independent normal numbers of variance 1 / rank, drawn from a seed at every use.

    The basis kept is the seed and n: no numbers. E[A Aᵀ] = I, so that matrices come back from their coordinates in
    the mean over seeds; a single one returns them √(1 + (n + 1) / rank) times as long. A refresh takes another
    seed. ``generator`` gives the first seed.

    >>> g = torch.ones(4, 6)
    >>> subspace = SeededNormal(rank=2)
    >>> basis = subspace.refresh(g)
    >>> basis, subspace.down(g, basis).shape
    ({'seed': 0, 'rows': 4}, torch.Size([2, 6]))
    """

    rank: int
    generator: Generator | None = None

    def refresh(self, g: Tensor, basis: Any = None, mean: Tensor | None = None) -> Any:  # noqa: ARG002
        if basis is None:
            first = 0 if self.generator is None else self.generator.initial_seed()
            return {"seed": first, "rows": len(g)}
        return {"seed": basis["seed"] + STRIDE, "rows": basis["rows"]}

    def down(self, g: Tensor, basis: Any) -> Tensor:
        return self._matrix(g, basis).mT @ g

    def up(self, y: Tensor, basis: Any) -> Tensor:
        return self._matrix(y, basis) @ y

    def transport(self, state: State, old: Any, new: Any) -> State:
        return {**state, "mean": self.down(self.up(state["mean"], old), new)}

    def _matrix(self, like: Tensor, basis: Any) -> Tensor:
        """The numbers, drawn on the processor so that every device has the same."""
        draws = torch.Generator().manual_seed(basis["seed"])
        numbers = torch.randn(basis["rows"], self.rank, generator=draws) / self.rank**0.5
        return numbers.to(like.device, like.dtype)
