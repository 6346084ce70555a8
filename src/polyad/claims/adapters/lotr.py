"""LoTR against LoRA of the same rank on all square layers. Under a minute on one core."""

from __future__ import annotations

from polyad._callback import Callback
from polyad.adapters import LoRA, LoTR
from polyad.claims.adapters._second_task import DEPTH, Bench
from polyad.claims.record import Result

MINUTES = 1


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """Rank 8 over six layers, 2 d r + L r² numbers against 2 L d r; and LoRA of a rank of about as many numbers."""
    bench, square = Bench(), [str(2 * i) for i in range(DEPTH)]
    ours, other, even = (
        bench.tune(LoTR, which=square, rank=8),
        bench.tune(LoRA, which=square, rank=8),
        bench.tune(LoRA, which=square, rank=2),
    )
    runs = {"lotr": ours, "lora": other, "lora of rank 2": even}
    return Result(
        "adapting a perceptron of six square layers, matrices shared by the layers reach a training loss within 5 % "
        "of LoRA's of the same rank; ratio",
        ours.loss / other.loss, "<=", 1.05, bench.digest, 0,
        {name: one.figures() for name, one in runs.items()} | {"unadapted loss and accuracy": bench.before},
    )  # fmt: skip
