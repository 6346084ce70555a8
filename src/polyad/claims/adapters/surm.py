"""Structured matrices against low rank of as many numbers, on matrices of full rank. Seconds on one core."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.adapters import SURM, LoRA
from polyad.adapters.methods.surm import Family
from polyad.claims._data_hash import sha
from polyad.claims._planted_changes import fit_adapter, normal
from polyad.claims.record import Result

MINUTES = 0.5
SIZE = 64


def targets(seed: int) -> dict[str, Tensor]:
    """Changes of full rank: normal, positive semidefinite, and nearly Toeplitz."""
    g = Generator().manual_seed(seed)
    root = normal(g, SIZE, SIZE)
    diagonals = normal(g, 2 * SIZE - 1)
    place = torch.arange(SIZE)
    toeplitz = diagonals[place[:, None] - place[None, :] + SIZE - 1]
    return {"normal": normal(g, SIZE, SIZE), "semidefinite": root @ root.mT / SIZE**0.5,
            "nearly Toeplitz": toeplitz + 0.3 * normal(g, SIZE, SIZE)}  # fmt: skip


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """The largest ratio of the best family's error to that of rank one, over the kinds of change."""
    runs: dict[str, dict[str, Any]] = {}
    for name, target in targets(0).items():
        zero = torch.zeros_like(target)
        runs[name] = {family: fit_adapter(zero, target, SURM, family=family) for family in get_args(Family)}
        runs[name]["lora, rank 1"] = fit_adapter(zero, target, LoRA, rank=1, alpha=1)
    ratios = {
        name: min(run[family]["error"] for family in get_args(Family)) / run["lora, rank 1"]["error"]
        for name, run in runs.items()
    }
    return Result(
        "matrices of full rank, of normal entries, positive semidefinite and nearly Toeplitz, are approximated by "
        "the best structured family of at most as many numbers with a lower error than by rank one; largest ratio "
        "of the two errors",
        max(ratios.values()), "<=", 1.0, {"planted matrices": sha(targets(0).values())}, 0,
        {"ratios": ratios, "runs": runs},
    )  # fmt: skip
