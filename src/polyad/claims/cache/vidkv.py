"""VidKV's bits on text, against one and two bits for every number. About two minutes on two cores."""

from __future__ import annotations

import math
from functools import partial

from polyad._callback import Callback
from polyad.cache import Kivi, VidKV
from polyad.claims.cache._smollm2_caches import Caches
from polyad.claims.record import Result

MINUTES = 2


def claim(callback: Callback | None = None) -> Result:
    """A language model instead of one for videos; values by channel and by token, and keys without the transform."""
    bench = Caches(prefix=960, scored=64, window=64, windows=3)
    by_codec = bench.compare(
        {
            "kivi 2": partial(Kivi, bits=2),
            "kivi 1": partial(Kivi, bits=1),
            "vidkv": VidKV,
            "vidkv, no spectrum": partial(VidKV, spectrum=False),
            "vidkv, values by token": partial(VidKV, by_token=True),
            "vidkv, no token protected": partial(VidKV, protect=0),
        },
        callback,
    )
    logs = {name: math.log(figures["mean"]) for name, figures in by_codec.items()}
    return Result(
        "with keys of one bit and a half and values of three levels the increase of log perplexity is at most half "
        "of what one bit for every number costs",
        logs["vidkv"] / logs["kivi 1"], "<=", 0.5, bench.data, 0, {"log of the ratio": logs, **by_codec},
    )  # fmt: skip
