"""A transform and a residual against LoRA, on a weight that was rotated and changed in few directions. Seconds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from polyad._callback import Callback
from polyad.adapters import LoRA, TransformedLoRA
from polyad.claims._data_hash import sha
from polyad.claims._planted_changes import fit_adapter, normal
from polyad.claims.record import Result

MINUTES = 0.5
SIZE, SEEDS = 64, (0, 1, 2)


def planted_weights(seed: int, kind: str) -> tuple[Tensor, Tensor]:
    """A normal weight, and it after a rotation by about a third of a radian and a change of rank two.

    The rotation is a Kronecker product of two, which the transform can be, or any.
    """
    g = Generator().manual_seed(seed)
    weight = normal(g, SIZE, SIZE) / SIZE**0.5
    turn = torch.kron(_rotation(g, 8), _rotation(g, 8)) if kind == "Kronecker" else _rotation(g, SIZE)
    change = normal(g, SIZE, 2) @ normal(g, 2, SIZE) / SIZE
    return weight, weight @ turn + change


def _rotation(generator: Generator, n: int) -> Tensor:
    a = normal(generator, n, n) * (0.5 / n**0.5)
    return torch.linalg.matrix_exp(a - a.mT)


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """The largest ratio of the error with the transform to that of LoRA, which trains no fewer numbers."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for kind in ("Kronecker", "any"):
        for seed in SEEDS:
            weight, target = planted_weights(seed, kind)
            runs.setdefault(kind, []).append({
                "transform": fit_adapter(weight, target, TransformedLoRA, bond=2, rank=2, steps=600),
                "lora": fit_adapter(weight, target, LoRA, rank=4, steps=600),
            })  # fmt: skip
    ratios = {
        kind: [r["transform"]["error"] / r["lora"]["error"] for r in kind_runs] for kind, kind_runs in runs.items()
    }
    digest = sha(t for kind in runs for seed in SEEDS for t in planted_weights(seed, kind))
    return Result(
        "where a weight was rotated and changed by a matrix of rank two, a transform with a residual of rank two has "
        "a lower error than LoRA of rank four, which trains as many numbers; largest ratio of the two errors where "
        "the rotation is a Kronecker product",
        max(ratios["Kronecker"]), "<=", 1.0, {"planted weights": digest}, 0, {"ratios": ratios, "runs": runs},
    )  # fmt: skip
