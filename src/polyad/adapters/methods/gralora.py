"""An update cut into blocks, each of a low rank of its own."""

from __future__ import annotations

import torch
from torch import Generator, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.formats import Format, LowRank, Network, Sum


@method(
    "adapter",
    name="gralora",
    example={"rank": 3, "blocks": 2, "shared": 1},
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
    """``ΔW[i, j] = alpha / rank · B[i, j] A[i, j]`` for each block of a grid of ``blocks`` x ``blocks``.

    A block has out / blocks rows, in / blocks columns and the rank rank / blocks, so that there are rank (in + out)
    numbers and 2 rank (in + out) operations a row, as with ``LoRA``, while ΔW has a rank up to blocks · rank; and an
    input of one block leaves the gradients of the others alone. A is uniform within ±1/√(in / blocks), B is zero.
    ``shared`` of the rank goes to a plain low-rank update of the whole matrix (the paper's hybrid); ``blocks`` must
    divide what is left, and both sides of the matrix. Where blocks · rank is at most a quarter of the shorter side,
    the blocks are applied as one pair of matrices that thin, with zeros between them: more operations, less time.

    >>> adapter = GraLoRA((6, 8), rank=4, blocks=2, generator=torch.Generator().manual_seed(0))
    >>> sum(p.numel() for p in adapter.parameters()), adapter.update(None).shape
    (56, (6, 8))
    """

    learning_rate = 0.005

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rank: int = 8,
        blocks: int = 2,
        shared: int = 0,
        alpha: float | None = None,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        out, n = matrix(shape)
        _check.rank(rank, min(out, n), f"the shorter side of a weight of shape {shape}")
        if not 0 <= shared < rank:
            raise ValueError(f"shared={shared} is not a part of rank={rank}; choose from 0 to {rank - 1}")
        grid_rank = rank - shared
        if blocks < 1 or any(size % blocks for size in (out, n, grid_rank)):
            raise ValueError(
                f"blocks={blocks} does not divide the {out} rows and {n} columns of a weight of shape {shape} and "
                f"the rank {grid_rank} that is not shared; choose a common divisor of the three"
            )
        k, self.shared = blocks, shared
        self.A = nn.Parameter(
            (2 * torch.rand(k, grid_rank // k, k, n // k, generator=generator) - 1) / (n // k) ** 0.5
        )
        self.B = nn.Parameter(torch.zeros(k, out // k, k, grid_rank // k))
        if shared:
            self.A_shared = nn.Parameter((2 * torch.rand(shared, n, generator=generator) - 1) / n**0.5)
            self.B_shared = nn.Parameter(torch.zeros(out, shared))
        self.scale = (rank if alpha is None else alpha) / rank
        self.thin = 4 * blocks * grid_rank <= min(out, n)

    def update(self, base: Frozen | None) -> Format:  # noqa: ARG002
        grid = self._thin() if self.thin else Network("alcr,crai->(al)(ci)", (self.B, self.A))
        if not self.shared:
            return grid
        low = LowRank(self.B_shared, self.A_shared)
        if isinstance(grid, LowRank):
            return LowRank(torch.cat((grid.left, low.left), 1), torch.cat((grid.right, low.right)))
        return Sum((grid, low))

    def _thin(self) -> LowRank:
        """The blocks in one pair of thin matrices that are zero but for them."""
        k, rank = self.A.shape[0], self.A.shape[1]
        eye = torch.eye(k, dtype=self.A.dtype, device=self.A.device)
        right = self.A.permute(2, 0, 1, 3).unsqueeze(3) * eye.view(1, k, 1, k, 1)  # (a, c, r, c, i)
        left = self.B.unsqueeze(2) * eye.view(k, 1, k, 1, 1)  # (a, l, a, c, r)
        return LowRank(left.flatten(2).flatten(0, 1), right.reshape(k * k * rank, -1))
