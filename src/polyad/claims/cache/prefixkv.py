"""PrefixKV's budgets against equal ones, and other evictions. About two minutes on two cores."""

from __future__ import annotations

import math
from functools import partial

from polyad._callback import Callback
from polyad.cache import H2O, Place, PrefixKV, StreamingLLM
from polyad.claims.cache._smollm2_caches import Caches
from polyad.claims.record import Result

MINUTES = 2
KEEP = 0.2


def claim(callback: Callback | None = None) -> Result:
    """A fifth of the prefix is kept, the same tokens by the same attention, with either division among layers."""
    bench = Caches(prefix=960, scored=64, window=64, windows=3)
    layers = bench.model.config.num_hidden_layers
    by_codec = bench.compare(
        {
            "prefixkv 20 %": partial(PrefixKV, keep=KEEP),
            "equal 20 %": partial(_Equal, keep=KEEP, count=layers),
            "prefixkv 50 %": partial(PrefixKV, keep=0.5),
            "equal 50 %": partial(_Equal, keep=0.5, count=layers),
            "h2o 20 %": partial(H2O, keep=KEEP),
            "sinks alone": partial(StreamingLLM, sinks=4),
        },
        callback,
    )
    logs = {name: math.log(figures["mean"]) for name, figures in by_codec.items()}
    return Result(
        "with a fifth of the prefix kept, the increase of log perplexity under PrefixKV's budgets is less than with "
        "equal budgets for all layers",
        logs["prefixkv 20 %"] / logs["equal 20 %"], "<=", 1.0, bench.data, 0, {"log of the ratio": logs, **by_codec},
    )  # fmt: skip


class _Equal(PrefixKV):
    """Its choice of tokens, with the same budget for every layer."""

    def __init__(self, place: Place, *, keep: float, count: int) -> None:
        super().__init__(place, keep=keep)
        self.shares = [keep] * count
