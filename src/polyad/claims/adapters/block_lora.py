"""Block-LoRA with few rows against LoRA of its nominal rank. Under a minute on one core."""

from __future__ import annotations

from polyad._callback import Callback
from polyad.adapters import BlockLoRA, LoRA
from polyad.claims.adapters._second_task import CLASSES, Bench
from polyad.claims.record import Result

MINUTES = 1
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
"""Lower than other claims': so few rows are learnt by heart at those, and all ways end worse than they began."""


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """Sixteen rows a class; nominal rank 8, 2 blocks, beside LoRA of rank 8 and of rank 4, which is as expressive."""
    bench = Bench(rows=16 * CLASSES)
    ours, other, half = (
        bench.tune(BlockLoRA, rates=RATES, rank=8, blocks=2),
        bench.tune(LoRA, rates=RATES, rank=8),
        bench.tune(LoRA, rates=RATES, rank=4),
    )
    runs = {"block-lora": ours, "lora, rank 8": other, "lora, rank 4": half}
    return Result(
        "adapting a perceptron with 16 rows a class, Block-LoRA of 2 blocks has the held-out accuracy of LoRA of its "
        "nominal rank, with a quarter fewer trained numbers, within 0.01; difference",
        ours.accuracy - other.accuracy, ">=", -0.01, bench.digest, 0,
        {name: one.figures() for name, one in runs.items()} | {"unadapted loss and accuracy": bench.before},
    )  # fmt: skip
