"""EDoRA against DoRA of the same rank. About a minute on one core."""

from __future__ import annotations

from polyad._callback import Callback
from polyad.adapters import DoRA, EDoRA
from polyad.claims.adapters._second_task import DEPTH, Bench
from polyad.claims.record import Result

MINUTES = 1


def claim(callback: Callback | None = None) -> Result:  # noqa: ARG001 - too short to report progress
    """Rank 16 of both, on the square layers: 320 numbers a layer against 2112."""
    bench, square = Bench(), [str(2 * i) for i in range(DEPTH)]
    ours, other = (bench.tune(method, which=square, rank=16) for method in (EDoRA, DoRA))
    return Result(
        "adapting a perceptron to a near task, EDoRA's held-out accuracy is that of DoRA of the same rank, with "
        "several times as many trained numbers, within 0.03; difference",
        ours.accuracy - other.accuracy, ">=", -0.03, bench.digest, 0,
        {"edora": ours.figures(), "dora": other.figures(), "unadapted loss and accuracy": bench.before},
    )  # fmt: skip
