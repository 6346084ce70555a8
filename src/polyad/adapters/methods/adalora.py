"""A low-rank update in the form of an SVD, whose singular values are pruned over all layers as training goes."""

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
from polyad.adapters.sharded import multiply, whole
from polyad.formats import LowRank


@method(
    "adapter",
    name="adalora",
    example={"rank": 2, "spare": 1},
    papers=(
        Paper(
            "Zhang, Chen, Bukharin, Karampatziakis, He, Cheng, Chen, Zhao",
            2023,
            "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning",
            "arXiv:2303.10512",
        ),
    ),
)
class AdaLoRA(Adapter):
    """``ΔW = alpha / rank · P diag(λ) Q`` of rank + ``spare`` triples, pruned to ``rank`` a layer on average.

    P (out, r) and Q (r, in) are normal of deviation 0.02, λ is zero. A triple's importance is that of λ and the means
    of P's column and Q's row, each number's being |number · gradient| smoothed by ``smooth`` times its own smoothed
    deviation (``wander``). The budget stays for the first tenth of the steps, falls by a cubic law, and stays for the
    last third (``warm``, ``last``); every ``every`` steps the λ of all triples that do not rank within it over all
    layers are set to zero, after the optimiser's step. ``orthogonal`` weighs ‖PᵀP - I‖² + ‖QQᵀ - I‖² in the penalty.
    The host's hooks must be called: without them nothing is pruned. Under FSDP2 every process holds the smoothed
    sensitivities whole, and gathers a layer's P, λ and Q three times a step to keep them and the penalty.

    >>> adapter = AdaLoRA((6, 8), rank=2, spare=1, generator=torch.Generator().manual_seed(0))
    >>> sum(p.numel() for p in adapter.parameters()), float(adapter.penalty().detach()) > 0
    (45, True)
    """

    learning_rate = 0.02

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rank: int = 8,
        spare: int = 4,
        alpha: float | None = None,
        smooth: float = 0.85,
        wander: float = 0.85,
        warm: float = 0.1,
        last: float = 1 / 3,
        every: int = 10,
        orthogonal: float = 0.1,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        out, n = matrix(shape)
        _check.rank(rank + spare, min(out, n), f"the shorter side of a weight of shape {shape}", "rank + spare")
        _check.rank(rank, rank + spare, "rank + spare")
        if warm < 0 or last < 0 or warm + last > 1 or every < 1:
            raise ValueError(
                f"warm={warm}, last={last} and every={every} leave no steps to prune in; give shares of "
                "at least 0 with a sum of at most 1, and every of 1 or more"
            )
        self.P = nn.Parameter(0.02 * torch.randn(out, rank + spare, generator=generator))
        self.values = nn.Parameter(torch.zeros(rank + spare))
        self.Q = nn.Parameter(0.02 * torch.randn(rank + spare, n, generator=generator))
        self.scale = (rank if alpha is None else alpha) / rank
        self.rank, self.spare, self.smooth, self.wander = rank, spare, smooth, wander
        self.warm, self.last, self.every, self.orthogonal = warm, last, every, orthogonal
        for name, p in (("P", self.P), ("values", self.values), ("Q", self.Q)):
            for kind in ("level", "spread"):
                self.register_buffer(f"{name}_{kind}", torch.zeros(p.shape), persistent=False)

    def update(self, base: Frozen) -> LowRank:  # noqa: ARG002
        return LowRank(self.P * self.values, self.Q)

    def penalty(self) -> Tensor:
        P, Q = whole(self.P), whole(self.Q)
        eye = torch.eye(P.shape[-1], dtype=P.dtype, device=P.device)
        gram = (P.mT @ P - eye).square().sum() + (Q @ Q.mT - eye).square().sum()
        return self.orthogonal * gram

    def importance(self) -> Tensor:
        """The importance of every triple, from the gradients seen so far."""
        P, values, Q = (getattr(self, f"{n}_level") * getattr(self, f"{n}_spread") for n in ("P", "values", "Q"))
        return values + P.mean(-2) + Q.mean(-1)

    @torch.no_grad()
    def watch(self) -> None:
        """Smooth the sensitivities by the gradients that are there."""
        for name in ("P", "values", "Q"):
            p, level, spread = getattr(self, name), getattr(self, f"{name}_level"), getattr(self, f"{name}_spread")
            if p.grad is not None:
                sense(p * p.grad, level, spread, self.smooth, self.wander)

    def budget(self, step: int, total: int) -> float:
        """The number of triples that a layer keeps on average after this step."""
        first, end = self.warm * total, (1 - self.last) * total
        left = 1 - min(max((step - first) / max(end - first, 1e-9), 0.0), 1.0)
        return self.rank + self.spare * left**3

    @classmethod
    def after_backward(cls, adapters: Sequence[Self], step: int, total: int) -> None:  # noqa: ARG003
        for adapter in adapters:
            adapter.watch()

    @classmethod
    @torch.no_grad()
    def after_step(cls, adapters: Sequence[Self], step: int, total: int) -> None:
        schedule = adapters[0]
        if step < schedule.warm * total or (step % schedule.every and step < (1 - schedule.last) * total):
            return
        scores = torch.cat([adapter.importance().flatten() for adapter in adapters])
        keep = min(len(scores), round(sum(adapter.budget(step, total) for adapter in adapters)))
        mask = torch.zeros_like(scores, dtype=torch.bool)
        mask[scores.argsort(descending=True, stable=True)[:keep]] = True
        for adapter, part in zip(adapters, mask.split([adapter.values.numel() for adapter in adapters]), strict=True):
            multiply(adapter.values, part.reshape(adapter.values.shape).to(adapter.values.dtype))
