"""A low-rank update with vectors between its matrices, which are frozen one by one as training goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Generator, Tensor, nn

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.adapter import Adapter, matrix
from polyad.adapters.frozen.frozen import Frozen
from polyad.adapters.sensitivity import sense
from polyad.formats import LowRank


@method(
    "adapter",
    name="aflora",
    example={"rank": 2},
    instead=(
        "Where accuracy counts more than the numbers that are trained: `lora` of the same rank keeps more of "
        "it on a near task, at three times as many."
    ),
    papers=(
        Paper(
            "Liu, Kundu, Li, Wan, Jiang, Beerel",
            2024,
            "AFLoRA: Adaptive Freezing of Low Rank Adaptation in Parameter Efficient Fine-Tuning of Large Models",
            "arXiv:2403.13269",
            handle="aflora",
        ),
    ),
)
class AFLoRA(Adapter):
    """``ΔW = alpha / rank · diag(b) B diag(d) A`` with all four trained at first, and b and d alone in the end.

    Of a layer with as many inputs as outputs A and B are frozen from the start, as the authors' runs on GLUE have it:
    there the wide layers alone learn directions. Their later code for arithmetic trains those too:
    ``train_square=True``.

    A and B are Kaiming-uniform, of the variances 2 / in and 2 / rank, d is ``start`` and b zero, so that nothing
    changes at first. A matrix's score is the mean over its numbers of |gradient|, smoothed by ``smooth``, times its
    smoothed deviation (``wander``). For the share ``warm`` of the steps nothing is frozen; then the share of frozen
    ones, over all layers, rises by a cubic law to 1, where it stays for the share ``last``; those of the lowest
    score are frozen first, after the optimiser's step, and are thawed by ``Adapters.thaw`` alone. The authors' code
    scores every ten steps, freezes what lies below that quantile of the scores of single numbers, and chooses
    ``last`` by task, up to 14 epochs of 20.

    The host's hooks must be called: without them nothing is frozen. ``DistributedDataParallel`` must be told
    ``find_unused_parameters=True``, since it waits for the gradients of what is frozen otherwise. A row takes
    2 rank (in + out) operations.

    >>> adapter = AFLoRA((6, 8), rank=2, generator=torch.Generator().manual_seed(0))
    >>> sum(p.numel() for p in adapter.parameters()), sum(p.numel() for p in adapter.matrices().values())
    (36, 28)
    """

    learning_rate = 0.02

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rank: int = 8,
        alpha: float | None = None,
        start: float = 0.1,
        smooth: float = 0.85,
        wander: float = 0.95,
        warm: float = 0.1,
        last: float = 1 / 3,
        train_square: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        out, n = matrix(shape)
        _check.rank(rank, min(out, n), f"the shorter side of a weight of shape {shape}")
        if warm < 0 or last < 0 or warm + last > 1:
            raise ValueError(
                f"warm={warm} and last={last} leave no steps to freeze in; give shares of at least 0 with a "
                "sum of at most 1"
            )
        self.A = nn.Parameter((2 * torch.rand(rank, n, generator=generator) - 1) * (6 / n) ** 0.5)
        self.B = nn.Parameter((2 * torch.rand(out, rank, generator=generator) - 1) * (6 / rank) ** 0.5)
        self.d, self.b = nn.Parameter(torch.full((rank,), start)), nn.Parameter(torch.zeros(out))
        self.scale = 1.0 if alpha is None else alpha / rank
        self.smooth, self.wander, self.warm, self.last = smooth, wander, warm, last
        self.learns_directions = train_square or out != n
        for p in (self.A, self.B):
            p.requires_grad_(self.learns_directions)
        for name, p in self.matrices().items():
            for kind in ("level", "spread"):
                self.register_buffer(f"{name}_{kind}", torch.zeros(p.shape), persistent=False)

    def matrices(self) -> dict[str, nn.Parameter]:
        """The matrices that are trained at first and frozen as training goes."""
        return {"A": self.A, "B": self.B} if self.learns_directions else {}

    def update(self, base: Frozen) -> LowRank:  # noqa: ARG002
        return LowRank(self.b.unsqueeze(1) * self.B * self.d, self.A)

    def score(self, name: str) -> float:
        """The sensitivity of the loss to a matrix, from the gradients seen so far."""
        level: Tensor = getattr(self, f"{name}_level")
        return float((level * getattr(self, f"{name}_spread")).mean())

    def frozen(self, step: int, total: int) -> float:
        """The share of all matrices that is frozen after this step."""
        first, end = self.warm * total, (1 - self.last) * total
        return 1 - (1 - min(max((step + 1 - first) / max(end - first, 1e-9), 0.0), 1.0)) ** 3

    @classmethod
    def after_backward(cls, adapters: Sequence[Self], step: int, total: int) -> None:  # noqa: ARG003
        for adapter in adapters:
            for name, p in adapter.matrices().items():
                level, spread = getattr(adapter, f"{name}_level"), getattr(adapter, f"{name}_spread")
                if p.grad is not None:
                    sense(p.grad, level, spread, adapter.smooth, adapter.wander)

    @classmethod
    def after_step(cls, adapters: Sequence[Self], step: int, total: int) -> None:
        every = [(adapter, name, p) for adapter in adapters for name, p in adapter.matrices().items()]
        moving = [(adapter.score(name), i) for i, (adapter, name, p) in enumerate(every) if p.requires_grad]
        excess = round(adapters[0].frozen(step, total) * len(every)) - (len(every) - len(moving))
        for _, i in sorted(moving)[: max(excess, 0)]:
            every[i][2].requires_grad_(False)
            every[i][2].grad = None
