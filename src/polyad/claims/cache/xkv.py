"""One SVD of four layers' caches against one of each layer, at equal bytes. About five minutes on two cores."""

from __future__ import annotations

from functools import partial

import torch

from polyad._callback import Callback
from polyad.cache import XKV, recording_cache, token_alignment
from polyad.claims.cache._smollm2_caches import Caches
from polyad.claims.record import Result

MINUTES = 5
SINGLE = 72


class Alone(XKV):
    """One layer at a time."""

    layers = 1


def claim(callback: Callback | None = None) -> Result:
    """Singular vectors of tokens that four layers share lose less than those of each layer, basis counted."""
    bench = Caches(windows=2)
    width = 192  # of the keys of a layer
    rank = 4 * SINGLE * (bench.prefix + width) // (bench.prefix + 4 * width)  # of equal bytes
    by_codec = bench.compare(
        {"four layers": partial(XKV, rank=rank), "each layer": partial(Alone, rank=SINGLE)}, callback
    )
    details = {**by_codec, "rank of four layers": rank, "rank of each layer": SINGLE, "alignment": _alignment(bench)}
    return Result(
        "at equal bytes, one truncated SVD of the keys, and of the values, of four neighbouring layers leaves a"
        " lower perplexity than one of each layer",
        by_codec["four layers"]["mean"] / by_codec["each layer"]["mean"], "<=", 1.0, bench.data, 0, details,
    )  # fmt: skip


def _alignment(bench: Caches) -> dict[str, float]:
    """Mean squared cosine between the leading 16 singular vectors of neighbouring layers' caches."""
    cache = recording_cache(bench.model)
    with torch.no_grad():
        bench.model.base_model(bench.texts["stdlib"][:1, : bench.prefix], past_key_values=cache, use_cache=True)
    sides: dict[str, list[torch.Tensor]] = {"keys": [], "values": []}
    assert cache.rotation is not None
    for layer in cache.held:
        keys, values = layer.recent.read()
        for name, x in (("keys", cache.rotation.undo(keys, 0)), ("values", values)):
            sides[name].append(x[0].transpose(0, 1).flatten(1))
    alignments = {name: token_alignment(torch.stack(rows), rank=16) for name, rows in sides.items()}
    return {name: float(matrix.diagonal(1).mean()) for name, matrix in alignments.items()}
