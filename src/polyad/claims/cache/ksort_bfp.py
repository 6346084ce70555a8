"""Keys in block floating point, sorted and unsorted. About six minutes on two cores."""

from __future__ import annotations

from functools import partial

from polyad._callback import Callback
from polyad.cache import KSortBFP
from polyad.claims.cache._smollm2_caches import Caches
from polyad.claims.record import Result

MINUTES = 6


def claim(callback: Callback | None = None) -> Result:
    """Sorting channels of keys by size makes blocks of half a head as good as blocks of a quarter."""
    bench = Caches(calibrate=8, windows=2)
    statistics = bench.observe(KSortBFP, callback)
    by_codec = bench.compare(
        {
            f"blocks of {group}, {'sorted' if sort else 'unsorted'}": (
                partial(KSortBFP, bits=4, value_bits=8, group=group, sort=sort),
                statistics,
            )
            for group, sort in ((32, True), (32, False), (16, True), (16, False))
        },
        callback,
    )
    return Result(
        "with mantissas of four bits for keys and of eight for values, keys sorted by size in blocks of 32 channels "
        "leave no higher perplexity than unsorted ones in blocks of 16",
        by_codec["blocks of 32, sorted"]["mean"] / by_codec["blocks of 16, unsorted"]["mean"], "<=", 1.0, bench.data,
        0, by_codec,
    )  # fmt: skip
