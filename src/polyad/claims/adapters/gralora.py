"""An outlier channel in the inputs: what it does to GraLoRA's gradients and to LoRA's. A minute or so."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from polyad._callback import Callback
from polyad.adapters import Adapters, GraLoRA, LoRA
from polyad.claims.adapters._planted_layer import Planted, normal
from polyad.claims.record import Result

OUT, IN, ROWS, BLOCKS, RANK, OUTLIER = 64, 64, 512, 4, 16, 30.0


def planted_layer() -> Planted:
    """A full-rank change, and inputs whose first channel is 30 times the others."""
    x = normal(ROWS, IN, seed=2)
    x[:, 0] *= OUTLIER
    weight = normal(OUT, IN, seed=0, std=IN**-0.5)
    return Planted(weight, weight + normal(OUT, IN, seed=1, std=0.3 * IN**-0.5), x)


def first_step_change(method: Any, x: torch.Tensor, grad: torch.Tensor, **arguments: Any) -> float:
    """The distance of the first step, away from the outlier's block of columns, from that without the outlier."""
    steps = []
    calm = x.clone()
    calm[:, 0] /= OUTLIER
    for inputs in (x, calm):
        layer = nn.Linear(IN, OUT, bias=False, dtype=x.dtype)
        model = nn.Sequential(layer)
        adapters = Adapters(model)
        adapters.attach("own", "*", method, **arguments)
        (model(inputs) * grad).sum().backward()
        before = layer.weight.detach().clone()
        with torch.no_grad():
            for p in adapters.parameters("own"):
                p.sub_(1e-3 * (torch.zeros_like(p) if p.grad is None else p.grad))
        adapters.merge()
        steps.append((layer.weight.detach() - before)[:, IN // BLOCKS :])
    return float((steps[0] - steps[1]).norm() / steps[1].norm())


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """The other blocks' first step; the rank reached; errors after training at equal numbers."""
    layer, grad = planted_layer(), normal(ROWS, OUT, seed=3)
    ours: dict[str, Any] = {"rank": RANK, "blocks": BLOCKS}
    other: dict[str, Any] = {"rank": RANK}
    off = {
        "GraLoRA": first_step_change(GraLoRA, layer.x, grad, **ours),
        "LoRA": first_step_change(LoRA, layer.x, grad, **other),
    }
    details: dict[str, Any] = {"relative change of the other blocks' first step": off}
    for name, method, arguments in (("GraLoRA", GraLoRA, ours), ("LoRA", LoRA, other)):
        best = {}
        for lr in (1e-3, 3e-3, 1e-2):
            fit = layer.fit(method, lr=lr, steps=400, **arguments)
            away = slice(IN // BLOCKS, None)
            left = (fit.weight - layer.target)[:, away].square().sum()
            best[lr] = {
                "loss": fit.losses[-1], "error": layer.error(fit.weight),
                "error away from the outlier": float(
                    left / (layer.weight - layer.target)[:, away].square().sum()
                ),
                "rank": int(torch.linalg.matrix_rank(fit.weight - layer.weight, rtol=1e-6)),
                "parameters": fit.parameters,
            }  # fmt: skip
        details[name] = min(best.values(), key=lambda fitted: fitted["loss"])
    return Result(
        "inputs with one channel 30 times the others: the first step of GraLoRA's weight outside that channel's "
        "blocks is what it is without the outlier; its change over LoRA's", off["GraLoRA"] / off["LoRA"], "<=", 1e-6,
        layer.digest, 0, details,
    )  # fmt: skip
