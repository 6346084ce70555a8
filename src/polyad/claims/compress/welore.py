"""WeLore's threshold against uniform ranks. About three minutes on two cores."""

from __future__ import annotations

from polyad._callback import Callback
from polyad.allocate import uniform
from polyad.claims._smollm2_perplexity import Bench, mean
from polyad.claims.record import Result
from polyad.compress import welore

MINUTES = 3


def claim(callback: Callback | None = None) -> Result:
    """One threshold on normalised singular values beats one rank for all, without data."""
    bench = Bench()
    data_free = {"calibrate": None, "callback": callback}
    ours = bench.ratio(bench.plan(welore, 0.9, **data_free), callback)
    even = bench.ratio(bench.plan(welore, 0.9, allocate=uniform, **data_free), callback)
    return Result(
        "at 10 % fewer linear parameters, plain SVD with ranks by one global threshold has a lower perplexity "
        "than with uniform ranks",
        mean(ours) / mean(even), "<=", 1.0, bench.data, 0, {"global threshold": ours, "uniform": even},
    )  # fmt: skip
