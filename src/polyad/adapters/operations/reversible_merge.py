"""A merge of many adapters into a few, from which each can be recovered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polyad import _check
from polyad._card import Paper, method
from polyad.adapters.host.adapters import Adapters
from polyad.adapters.methods.lora import LoRA
from polyad.adapters.operations.arithmetic import attach_factors
from polyad.formats import LowRank


@dataclass(frozen=True)
class ReversibleMerge:
    """``keep`` basis adapters and coefficients of ``names``; each column of A, and each row of B, has its own.

    ``bases[path]`` are the bases (columns, rank, keep) of A and B, ``coefficients[path]`` theirs (columns, keep, n).
    """

    names: tuple[str, ...]
    bases: dict[str, tuple[Tensor, Tensor]]
    coefficients: dict[str, tuple[Tensor, Tensor]]

    @property
    def numbers(self) -> int:
        """The count of numbers that the merge stores."""
        return sum(t.numel() for stored in (self.bases, self.coefficients) for pair in stored.values() for t in pair)

    def factors(self, name: str) -> dict[str, LowRank]:
        """The adapter of this name as it is recovered, by path."""
        if name not in self.names:
            raise ValueError(f"{name!r} was not merged; choose from {list(self.names)}")
        i = self.names.index(name)
        factors: dict[str, LowRank] = {}
        for path, pair in self.bases.items():
            right, left = (
                (u @ c[..., i : i + 1]).squeeze(-1) for u, c in zip(pair, self.coefficients[path], strict=True)
            )
            factors[path] = LowRank(left, right.mT)
        return factors

    def attach(self, adapters: Adapters, name: str, new: str) -> None:
        """Attach the recovered adapter ``name`` under a name that is free."""
        attach_factors(adapters, new, self.factors(name))


@method(
    "function",
    papers=(
        Paper(
            "Alipour, Amiri",
            2025,
            "Towards Reversible Model Merging For Low-rank Weights",
            "arXiv:2510.14163",
            handle="rmm",
        ),
    ),
)
def reversible_merge(adapters: Adapters, names: Sequence[str], keep: int) -> ReversibleMerge:
    """Merge LoRAs of one rank on the same layers so that each is recovered as a combination of ``keep`` bases.

    For each column of A and each row of B the n adapters' vectors are the columns of X (rank, n): the basis is X's
    first ``keep`` left singular vectors U, the coefficients Uᵀ X. It is the least error of A and B, each for itself,
    and exact for ``keep`` = min(rank, n). It holds keep (rank + n) numbers a column in place of rank · n,
    which is fewer for keep < rank n / (rank + n) alone. The scale
    goes into B. Raises ValueError for other methods, for other layers and for ranks that differ.

    >>> host = Adapters(torch.nn.Sequential(torch.nn.Linear(6, 8)))
    >>> _ = [host.attach(n, "*", LoRA, rank=2, seed=i) for i, n in enumerate("abc")]
    >>> merged = reversible_merge(host, ["a", "b", "c"], keep=2)
    >>> bool((merged.factors("b")["0"].right - host.of("b")["0"].A).norm() < 1e-5)
    True
    """
    loras: list[dict[str, Any]] = [dict(adapters.of(name)) for name in names]
    if len(loras) < 2 or any(by_site.keys() != loras[0].keys() for by_site in loras):
        raise ValueError(f"names={list(names)} must be two adapters or more, all on the same layers")
    bases: dict[str, tuple[Tensor, Tensor]] = {}
    coefficients: dict[str, tuple[Tensor, Tensor]] = {}
    for path in loras[0]:
        each = [by_site[path] for by_site in loras]
        if any(type(one) is not LoRA or one.A.shape != each[0].A.shape for one in each):
            raise ValueError(f"the adapters of {path} are not all LoRAs of one rank; combine(...) makes them so")
        rank = each[0].A.shape[-2]
        _check.rank(keep, min(rank, len(each)), "the lesser of the rank and the number of adapters", "keep")
        with torch.no_grad():
            right = torch.stack([one.A.mT for one in each], -1)  # (in, rank, n)
            left = torch.stack([one.scale * one.B for one in each], -1)
            first, second = (torch.linalg.svd(x, full_matrices=False)[0][..., :keep] for x in (right, left))
        bases[path], coefficients[path] = (first, second), (first.mT @ right, second.mT @ left)
    return ReversibleMerge(tuple(names), bases, coefficients)
