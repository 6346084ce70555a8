"""LoRA whose factors are sums of Kronecker products of short vectors."""

from __future__ import annotations

import math
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
    name="tensorpoly",
    example={"rank": 2, "terms": 2},
    papers=(
        Paper(
            "Su, Mo, Tiwari, Wang, Li, Nie, Simonsen",
            2024,
            "Mixture of Latent Experts Using Tensor Products",
            "arXiv:2405.16671",
            handle="tensorpoly",
        ),
    ),
)
class TensorPoly(Adapter):
    """``ΔW = alpha / rank · B A`` where B's columns and A's rows are ``Σ_r v₁ʳ ⊗ … ⊗ v_Nʳ``, of ``terms`` terms.

    N is ``order`` and a side of d numbers takes vectors of ⌈d^(1/N)⌉, of whose product the first d entries count:
    rank · terms · Σ ⌈d^(1/N)⌉ numbers a side instead of rank · d. A's vectors are normal, so that its entries have
    variance 1 / in; B's first are zero and its others normal, so that nothing changes at first. Forming A and B takes
    2 rank terms (in + out) operations a call, and a row what it takes for LoRA.

    This is the paper's TLoRA. With ``tasks``, TensorPoly-I: ``logits`` (tasks, terms) weigh the terms of both factors
    by terms · softmax(logits[task]), which is one where they are equal; the task is set by ``task`` and may change
    between calls. ``routes="order"`` is TensorPoly-II: ``logits`` (tasks, order, terms) choose among the vectors of
    each order, as ``⊗_n Σ_r w_nʳ v_nʳ``, so that a row is one product of N vectors, mixed of ``terms`` each. The
    paper's Gumbel noise, and the normalisation of layers that the authors' code puts between orders, are not here.

    >>> adapter = TensorPoly((16, 25), rank=1, terms=1)
    >>> sum(p.numel() for p in adapter.parameters())
    18
    """

    task: int = 0
    """Which row of ``logits`` weighs the terms."""

    learning_rate = 0.0015

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rank: int = 8,
        order: int = 2,
        terms: int = 4,
        alpha: float | None = None,
        tasks: int | None = None,
        routes: Literal["rank", "order"] = "rank",
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        self.out, self.n = matrix(shape)
        _check.rank(rank, min(self.out, self.n), f"the shorter side of a weight of shape {shape}")
        _check.rank(order, 16, "what is of use", "order")
        _check.rank(terms, 2**15, "what is of use", "terms")
        if routes not in ("rank", "order") or (routes == "order" and tasks is None):
            raise ValueError(
                f"routes={routes!r} with tasks={tasks} is unknown; choose 'rank', or 'order' with tasks="
            )
        apart = routes == "rank"
        spread = terms ** (-0.5 / order if apart else -0.5)  # so that sums over terms have unit variance
        size, wide = _root(self.n, order), spread * self.n ** (-0.5 / order)
        tall = _root(self.out, order)
        self.A = nn.Parameter(wide * torch.randn(order, rank, size, terms, generator=generator))
        first = torch.zeros(1, rank, tall, terms)
        others = spread * torch.randn(order - 1, rank, tall, terms, generator=generator)
        self.B = nn.Parameter(torch.cat((first, others)))
        sides = (terms,) if apart else (order, terms)
        self.logits = (
            None if tasks is None else nn.Parameter(torch.zeros(_check.rank(tasks, 2**15, "", "tasks"), *sides))
        )
        self.scale = (rank if alpha is None else alpha) / rank

    def update(self, base: Frozen) -> LowRank:  # noqa: ARG002
        share = None if self.logits is None else self.logits.shape[-1] * self.logits[self.task].softmax(-1)
        if share is None or share.ndim == 1:
            B, A = _entangle(self.B, share), _entangle(self.A, share)
        else:
            B, A = (_entangle(torch.einsum("onst,ot->ons", v, share).unsqueeze(-1), None) for v in (self.B, self.A))
        return LowRank(B[:, : self.out].mT, A[:, : self.n])


def _root(d: int, order: int) -> int:
    """The least whole number whose power reaches d."""
    return next(k for k in range(math.floor(d ** (1 / order)), d + 1) if k**order >= d)


def _entangle(vectors: Tensor, share: Tensor | None) -> Tensor:
    """Form the rows Σ_r v₁ʳ ⊗ … ⊗ v_Nʳ of vectors (order, rank, size, terms)."""
    rows, *others = vectors.unbind()
    rows = rows if share is None else rows * share
    for more in others[:-1]:
        rows = (rows.unsqueeze(2) * more.unsqueeze(1)).flatten(1, 2)
    return (rows @ others[-1].mT).flatten(1) if others else rows.sum(-1)
