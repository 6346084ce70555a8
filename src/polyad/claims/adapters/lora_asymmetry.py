"""LoRA that trains B alone, A alone or both, on inputs that lie near few directions. A minute or so."""

from __future__ import annotations

from typing import Any

import torch

from polyad._callback import Callback
from polyad.adapters import LoRA
from polyad.claims.adapters._planted_layer import Planted, normal
from polyad.claims.record import Result

WIDTH, ROWS, RANK, STEPS, NOISE, SEEDS = 48, 144, 4, 150, 0.1, 2
RATES = (1e-2, 3e-2)
CASES: dict[str, dict[str, Any]] = {
    "both, rank 4": {"rank": RANK},
    "A, rank 4": {"rank": RANK, "trained": "A"},
    "B, rank 4": {"rank": RANK, "trained": "B"},
    "B, rank 8": {"rank": 2 * RANK, "trained": "B"},
}


def planted_layer(seed: int) -> tuple[Planted, torch.Tensor]:
    """A full-rank change, noisy outputs, inputs whose j-th direction has deviation 1 / j; and inputs held out."""
    falling = torch.arange(1, WIDTH + 1, dtype=torch.float64).reciprocal()
    turn = torch.linalg.qr(normal(WIDTH, WIDTH, seed=10 * seed)).Q
    x = normal(2 * ROWS, WIDTH, seed=10 * seed + 1) * falling @ turn.mT
    weight = normal(WIDTH, WIDTH, seed=10 * seed + 2, std=WIDTH**-0.5)
    target = weight + normal(WIDTH, WIDTH, seed=10 * seed + 3, std=WIDTH**-0.5)
    return Planted(weight, target, x[:ROWS], normal(ROWS, WIDTH, seed=10 * seed + 4, std=NOISE)), x[ROWS:]


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """Held-out errors, over two seeds, each at the rate of the least training loss."""
    held_out: dict[str, list[float]] = {name: [] for name in CASES}
    gap: dict[str, list[float]] = {name: [] for name in CASES}
    counts: dict[str, int] = {}
    digests: dict[str, str] = {}
    for seed in range(SEEDS):
        layer, x = planted_layer(seed)
        digests[f"seed {seed}"] = layer.digest["planted layer"]
        for name, arguments in CASES.items():
            fits = [layer.fit(LoRA, lr=lr, steps=STEPS, seed=seed, **arguments) for lr in RATES]
            best = min(fits, key=lambda fit: fit.losses[-1])
            base = (x @ (layer.weight - layer.target).mT).square().mean()
            held_out[name].append(float((x @ (best.weight - layer.target).mT).square().mean() / base))
            seen_error = (layer.x @ (best.weight - layer.target).mT).square().mean()
            base = (layer.x @ (layer.weight - layer.target).mT).square().mean()
            gap[name].append(held_out[name][-1] - float(seen_error / base))
            counts[name] = best.parameters
    mean = {name: sum(errors) / SEEDS for name, errors in held_out.items()}
    return Result(
        "inputs with a falling spectrum: the held-out error of LoRA that trains B alone, A random, over that which "
        "trains A alone, B random, at rank 4", mean["B, rank 4"] / mean["A, rank 4"], "<=", 0.9, digests, 0,
        {"held-out error": held_out, "held-out less seen": gap, "parameters": counts,
         "B at rank 8 over both at rank 4": mean["B, rank 8"] / mean["both, rank 4"]},
    )  # fmt: skip
