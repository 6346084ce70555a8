"""The weight of the learning rate for SingLoRA and for LoRA, on planted changes of one layer. Some seconds."""

from __future__ import annotations

import math
from typing import Any

from polyad._callback import Callback
from polyad.adapters import LoRA, SingLoRA
from polyad.claims.adapters._planted_layer import Planted, normal
from polyad.claims.record import Result

WIDTH, ROWS, RANK, STEPS = 64, 256, 4, 150
RATES = tuple(10 ** (-2.5 + i / 4) for i in range(5))  # a decade


def planted_layer(symmetric: bool) -> Planted:
    """A change of rank 4: symmetric and positive, which SingLoRA can state, or of any two factors."""
    weight = normal(WIDTH, WIDTH, seed=0, std=WIDTH**-0.5)
    left = normal(WIDTH, RANK, seed=1, std=WIDTH**-0.5)
    right = left if symmetric else normal(WIDTH, RANK, seed=2, std=WIDTH**-0.5)
    return Planted(weight, weight + left @ right.mT, normal(ROWS, WIDTH, seed=3))


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """The spread of the final loss's logarithm over a decade of rates; both kinds of targets; parameters."""
    details: dict[str, Any] = {}
    spread: dict[str, float] = {}
    for kind in ("symmetric", "any"):
        layer = planted_layer(kind == "symmetric")
        for name, method in (("SingLoRA", SingLoRA), ("LoRA", LoRA)):
            fits = [layer.fit(method, lr=lr, steps=STEPS, rank=RANK, ramp=0.1) if method is SingLoRA else
                    layer.fit(method, lr=lr, steps=STEPS, rank=RANK) for lr in RATES]  # fmt: skip
            losses = [fit.losses[-1] for fit in fits]
            logs = [math.log(loss) for loss in losses]
            mean = sum(logs) / len(logs)
            deviation = math.sqrt(sum((v - mean) ** 2 for v in logs) / len(logs))
            details[f"{name}, {kind} target"] = {
                "loss by rate": losses, "spread of its logarithm": deviation, "parameters": fits[0].parameters,
            }  # fmt: skip
            if kind == "symmetric":
                spread[name] = deviation
    return Result(
        "a symmetric positive change of rank 4, learning rates over a decade: the spread (standard deviation of the "
        "logarithm) of SingLoRA's final loss, over LoRA's", spread["SingLoRA"] / spread["LoRA"], "<=", 1.0,
        planted_layer(True).digest, 0, details,
    )  # fmt: skip
