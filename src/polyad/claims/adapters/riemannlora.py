"""RiemannLoRA with SGD against LoRA with Adam. Under a minute on one core."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from polyad._callback import Callback
from polyad.adapters import LoRA, RiemannLoRA
from polyad.claims.adapters._second_task import DEPTH, Bench
from polyad.claims.record import Result

MINUTES = 1


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """Rank 8 on the square layers, each at its best learning rate of six."""
    bench, square = Bench(), [str(2 * i) for i in range(DEPTH)]
    x, y = bench.data

    def loss() -> torch.Tensor:
        return F.cross_entropy(bench.model(x), y)

    rates = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    ours = bench.tune(RiemannLoRA, which=square, rank=8, rates=rates, loss=loss, optimiser=torch.optim.SGD)
    other = bench.tune(LoRA, which=square, rank=8, rates=rates)
    return Result(
        "adapting a perceptron to a near task, 200 steps on the manifold of rank 8 from the gradient's start reach "
        "at most the held-out loss of 200 steps of Adam on LoRA; ratio",
        ours.held / other.held, "<=", 1.0, bench.digest, 0,
        {"riemannlora": ours.figures(), "lora": other.figures(), "unadapted loss and accuracy": bench.before},
    )  # fmt: skip
