"""Palu's rounded latents against rounding alone, and its groups and ranks. About eight minutes on two cores."""

from __future__ import annotations

from functools import partial

from polyad._callback import Callback
from polyad.cache import Kivi, Palu, fisher, fisher_ranks
from polyad.claims.cache._smollm2_caches import Caches
from polyad.claims.record import Result

MINUTES = 8


def claim(callback: Callback | None = None) -> Result:
    """Low rank and few bits together lose less than fewer bits alone, at no more bytes."""
    bench = Caches()
    statistics = bench.observe(Palu, callback)
    information = fisher(bench.model, Palu, bench.calibration.windows[:8], callback=callback)
    by_codec = bench.compare(
        {
            "palu, rank 128 of 192, 3 bits": (partial(Palu, rank=128, bits=3, group=128), statistics),
            "kivi, 2 bits": partial(Kivi, bits=2, group=64),
            "palu, half, joint": (partial(Palu, rank=96), statistics),
            "palu, half, each head": (partial(Palu, rank=32, heads=1), statistics),
            "palu, half, ranks by Fisher information": (Palu, fisher_ranks(statistics, information, 0.5, unit=8)),
        },
        callback,
    )
    ours, theirs = by_codec["palu, rank 128 of 192, 3 bits"], by_codec["kivi, 2 bits"]
    return Result(
        "keys and values at two thirds of their rank with latents of three bits leave a lower perplexity than two-bit"
        " quantisation of all of them, in no more bytes",
        ours["mean"] / theirs["mean"], "<=", 1.0, bench.data, 0, by_codec,
    )  # fmt: skip
