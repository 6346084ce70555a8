"""SQuat against KIVI at two bits and the same bytes. About two minutes on two cores."""

from __future__ import annotations

import math
from functools import partial

from polyad._callback import Callback
from polyad.cache import Kivi, Squat
from polyad.claims.cache._smollm2_caches import Caches
from polyad.claims.record import Result

MINUTES = 2


def claim(callback: Callback | None = None) -> Result:
    """With the paper's rank 5 and weight 0.001."""
    bench = Caches(prefix=960, scored=64, window=64, windows=3)
    by_codec = bench.compare(
        {
            "kivi 2": partial(Kivi, bits=2),
            "squat 2": partial(Squat, bits=2),
            "squat 2, rank 20": partial(Squat, bits=2, rank=20),
            "squat 2, rank 64": partial(Squat, bits=2, rank=64),
        },
        callback,
    )
    logs = {name: math.log(figures["mean"]) for name, figures in by_codec.items()}
    return Result(
        "at two bits the increase of log perplexity under SQuat (rank 5, weight 0.001) is less than under KIVI, "
        "which takes the same bytes",
        logs["squat 2"] / logs["kivi 2"], "<=", 1.0, bench.data, 0, {"log of the ratio": logs, **by_codec},
    )  # fmt: skip
