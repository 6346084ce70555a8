"""GEAR against the codes that it stands on, at four and two bits. About two minutes on two cores."""

from __future__ import annotations

import math
from functools import partial

from polyad._callback import Callback
from polyad.cache import Gear, Kivi
from polyad.claims.cache._smollm2_caches import Caches
from polyad.claims.record import Result

MINUTES = 2


def claim(callback: Callback | None = None) -> Result:
    """Near lossless at four bits; what each part adds at two stands in the details."""
    bench = Caches(prefix=960, scored=64, window=64, windows=3)
    by_codec = bench.compare(
        {
            "kivi 4": partial(Kivi, bits=4),
            "gear 4": partial(Gear, bits=4),
            "kivi 3": partial(Kivi, bits=3),
            "kivi 2": partial(Kivi, bits=2),
            "gear 2, outliers alone": partial(Gear, bits=2, rank=0),
            "gear-l 2": partial(Gear, bits=2, outliers=0),
            "gear 2": partial(Gear, bits=2),
        },
        callback,
    )
    return Result(
        "GEAR with codes of four bits, rank 4 and 2 % of outliers changes perplexity by at most half a per cent",
        math.exp(abs(math.log(by_codec["gear 4"]["mean"]))), "<=", 1.005, bench.data, 0, by_codec,
    )  # fmt: skip
