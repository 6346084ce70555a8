"""Single layers on the clock: which are slower than what they replace, and up to which rank two factors are not."""

from __future__ import annotations

import copy
import functools
import itertools
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
from polyad.layers.kernels import prepare_layers
from polyad.layers.kernels.choice import CACHE
from polyad.models.experts import layer_at
from polyad.models.layer_matrices import linear_types, matrix_shape

ROWS = (1, 64)
"""Rows at which a layer is timed: decoding one token, and a short prompt."""
TURNS = 9
MOST_COPIES = 63
"""The most copies of a layer that are called in turn with it."""


@torch.no_grad()
def relative_times(
    model: nn.Module, original: nn.Module, paths: Iterable[str], callback: Callback | None = None
) -> dict[str, dict[int, float]]:
    """For each path the layer's time over that of the original's layer, by rows; equal pairs are timed once.

    Linear layers are: those of convolutions and embeddings depend on more than rows. Layers of codes are timed as
    ``polyad.load`` gives them, with the kernels that are fast here; the model keeps its own. Weights are read from
    memory, as in a model, and not from the processor's cache.
    """
    by_kind: dict[str, dict[int, float]] = {}
    times: dict[str, dict[int, float]] = {}
    chosen = [path for path in paths if isinstance(model.get_submodule(path), (Linear, *linear_types()))]
    for number, path in enumerate(chosen, 1):
        new, old = model.get_submodule(path), layer_at(original, path)
        key = _kind(new) + _kind(old)
        if key not in by_kind:
            loaded = prepare_layers(copy.deepcopy(new).eval())
            by_kind[key] = {rows: time_ratio(_call(loaded, rows), _call(old, rows)) for rows in ROWS}
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
    """A call of the layer or of the next of its copies, as many as the processor's cache does not hold."""
    weight = _weight(layer)
    copies = [layer, *(copy.deepcopy(layer) for _ in range(min(MOST_COPIES, CACHE // max(1, weight.nbytes))))]
    x = torch.ones(rows, matrix_shape(layer)[1], dtype=weight.dtype, device=weight.device)
    for one in copies:
        one(x)  # which packs what is to be packed
    turn = itertools.cycle(copies)
    return lambda: next(turn)(x)


def _weight(layer: Any) -> Any:
    return layer.weight() if isinstance(layer.weight, Factors) else layer.weight


def _kind(layer: Any) -> str:
    weight = layer.weight
    if isinstance(weight, Tensor):
        return f"{tuple(weight.shape)} {weight.dtype}"
    return json.dumps(weight().spec(), sort_keys=True)
