"""Single layers on the clock: which are slower than what they replace, and up to which rank two factors are not."""

from __future__ import annotations

import functools
import json
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from polyad._callback import Callback
from polyad.formats import LowRank
from polyad.layers import Factors, Linear
from polyad.models.experts import layer_at
from polyad.models.layer_matrices import linear_types, matrix_shape

ROWS = (1, 64)
"""Rows at which a layer is timed: decoding one token, and a short prompt."""
TURNS = 9


@torch.no_grad()
def relative_times(
    model: nn.Module, original: nn.Module, paths: Iterable[str], callback: Callback | None = None
) -> dict[str, dict[int, float]]:
    """For each path the layer's time over that of the original's layer, by rows; equal pairs are timed once.

    Linear layers are: those of convolutions and embeddings depend on more than rows.
    """
    by_kind: dict[str, dict[int, float]] = {}
    times: dict[str, dict[int, float]] = {}
    chosen = [path for path in paths if isinstance(model.get_submodule(path), (Linear, *linear_types()))]
    for number, path in enumerate(chosen, 1):
        new, old = model.get_submodule(path), layer_at(original, path)
        key = _kind(new) + _kind(old)
        if key not in by_kind:
            by_kind[key] = {rows: time_ratio(_call(new, rows), _call(old, rows)) for rows in ROWS}
        times[path] = by_kind[key]
        if callback is not None:
            callback(number, len(chosen), {"stage": "layers"})
    return times


def time_ratio(one: Callable[[], object], other: Callable[[], object], turns: int = TURNS) -> float:
    """The median time of one call over that of the other, taking turns; each runs once uncounted."""
    one()
    other()
    first, second = [], []
    for _ in range(turns):
        clock = time.perf_counter()
        one()
        middle = time.perf_counter()
        other()
        first.append(middle - clock)
        second.append(time.perf_counter() - middle)
    return statistics.median(first) / statistics.median(second)


@functools.cache
@torch.no_grad()
def break_even(shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> int:
    """The largest rank at which two factors are as fast as a dense layer (out, in) at all of ``ROWS``, by bisection.

    0 where no rank is. Measured, so another machine, or a busy one, gives another number.
    """
    dense = nn.Linear(shape[1], shape[0], bias=False, dtype=dtype)
    low, high = 0, min(shape)
    while high - low > max(1, min(shape) // 64):
        rank = (low + high) // 2
        factored = Linear(LowRank(torch.zeros(shape[0], rank, dtype=dtype), torch.zeros(rank, shape[1], dtype=dtype)))
        slow = any(time_ratio(_call(factored, rows), _call(dense, rows)) > 1.0 for rows in ROWS)
        low, high = (low, rank) if slow else (rank, high)
    return low


def _call(layer: Any, rows: int) -> Callable[[], object]:
    weight = layer.weight() if isinstance(layer.weight, Factors) else layer.weight
    x = torch.ones(rows, matrix_shape(layer)[1], dtype=weight.dtype, device=weight.device)
    return lambda: layer(x)


def _kind(layer: Any) -> str:
    weight = layer.weight
    if isinstance(weight, Tensor):
        return f"{tuple(weight.shape)} {weight.dtype}"
    return json.dumps(weight().spec(), sort_keys=True)
