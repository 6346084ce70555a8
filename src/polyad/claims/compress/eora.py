"""EoRA's compensation against a plain SVD's, on the off-grid twin at four bits. About six minutes on two cores."""

from __future__ import annotations

from functools import partial

from polyad._callback import Callback
from polyad.claims._smollm2_perplexity import Bench, mean
from polyad.claims.record import Result
from polyad.compress import eora, equivalent_rescaling
from polyad.decompose import svd
from polyad.evaluation import nbytes
from polyad.quantize import round_to_nearest

MINUTES = 6


def claim(callback: Callback | None = None) -> Result:
    """The eigenspace of the inputs recovers at least twice what an SVD of the error recovers."""
    bench = Bench(calibrate=16, windows=8)
    rounded = [equivalent_rescaling, partial(round_to_nearest, bits=4, group=64)]
    log, layer_bytes = {}, {}
    recipes = {
        "none": rounded, "svd": [*rounded, partial(svd, rank=32)], "eora": [*rounded, partial(eora, rank=32)],
        "group of 32": [equivalent_rescaling, partial(round_to_nearest, bits=4, group=32)],
        "five bits": [equivalent_rescaling, partial(round_to_nearest, bits=5, group=64)],
    }  # fmt: skip
    for name, recipe in recipes.items():
        plan = bench.plan(recipe, callback=callback)
        log[name] = mean(bench.ratio(plan, callback))
        with bench.under(plan, callback) as model:
            layer_bytes[name] = nbytes(model, plan.selected).selected
    recovered = {name: (log["none"] - log[name]) / (log["none"] - 1) for name in ("svd", "eora")}
    return Result(
        "after four-bit rounding in groups of 64, the share of the lost perplexity that a rank-32 compensation "
        "recovers is at least twice as large in the eigenspace of the inputs as by plain SVD",
        recovered["eora"] / max(recovered["svd"], 1e-9), ">=", 2.0, bench.data, 0,
        {"perplexity ratio": log, "bytes of the layers": layer_bytes, "share recovered": recovered},
    )  # fmt: skip
