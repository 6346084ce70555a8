"""MoDeGPT against whitened SVD and a uniform cut at equal parameters. About ten minutes on two cores."""

from __future__ import annotations

from polyad._callback import Callback
from polyad.allocate import block_influence, uniform
from polyad.claims._smollm2_perplexity import Bench, mean
from polyad.claims.record import Result
from polyad.compress import lord, modegpt

MINUTES = 10


def claim(callback: Callback | None = None) -> Result:
    """Modular decomposition keeps a lower perplexity than factorising every matrix, at equal parameters."""
    bench = Bench()
    pairs = bench.ratio(bench.plan(modegpt, 0.8, callback=callback), callback)
    even = bench.ratio(bench.plan(modegpt, 0.8, allocate=uniform, callback=callback), callback)
    influence = bench.ratio(bench.plan(modegpt, 0.8, allocate=block_influence, callback=callback), callback)
    layerwise = bench.ratio(bench.plan(lord, 0.8, allocate=uniform, callback=callback), callback)
    return Result(
        "with 20 % of the decoder's linear parameters removed and no fine-tuning, cutting matrices in pairs leaves a "
        "lower perplexity than output-aware factorisation of each matrix",
        mean(pairs) / mean(layerwise), "<=", 1.0, bench.data, 0,
        {"modegpt": pairs, "modegpt, all rules evenly": even, "modegpt, by block influence": influence,
         "lord, uniform rank": layerwise},
    )  # fmt: skip
