"""SQuat against KIVI at two bits and the same bytes. About two minutes on two cores."""

from __future__ import annotations

from functools import partial
from typing import Any

from polyad.cache import Kivi, Squat
from polyad.claims._caches import Caches
from polyad.claims._result import Result

MINUTES = 2


def claim(callback: Any = None) -> Result:
    """With the paper's rank 5 and weight 0.001."""
    bench = Caches(windows=3)
    logs, details = bench.measure(
        {
            "kivi 2": partial(Kivi, bits=2),
            "squat 2": partial(Squat, bits=2),
            "squat 2, rank 20": partial(Squat, bits=2, rank=20),
            "squat 2, rank 64": partial(Squat, bits=2, rank=64),
        },
        callback,
    )
    return Result(
        "at two bits the increase of log perplexity under SQuat (rank 5, weight 0.001) is less than under KIVI, "
        "which takes the same bytes",
        logs["squat 2"] / logs["kivi 2"], "<=", 1.0, bench.data, 0, {"log of the ratio": logs, **details},
    )  # fmt: skip
