"""LORD against plain SVD at equal rank. About five minutes on two cores."""

from __future__ import annotations

from polyad._callback import Callback
from polyad.allocate import uniform
from polyad.claims._smollm2_perplexity import Bench, mean
from polyad.claims.record import Result
from polyad.compress import lord
from polyad.decompose import svd

MINUTES = 5


def claim(callback: Callback | None = None) -> Result:
    """Truncating outputs costs far less perplexity than truncating weights, at the same ranks."""
    bench = Bench()
    aware = bench.ratio(bench.plan(lord, 0.9, allocate=uniform, callback=callback), callback)
    plain = bench.ratio(bench.plan(svd, 0.9, allocate=uniform, importance=False, callback=callback), callback)
    return Result(
        "at 10 % fewer linear parameters, uniform rank, the perplexity ratio of output-aware factorisation is at "
        "most a tenth of plain SVD's",
        mean(aware) / mean(plain), "<=", 0.1, bench.data, 0, {"lord": aware, "svd": plain},
    )  # fmt: skip
