"""Statistics of a model's layers from calibration data, in one streaming pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from polyad._callback import Callback
from polyad._stated import in_words
from polyad.models.calibration.room import refuse_too_large
from polyad.models.calibration.statistic import STATISTICS
from polyad.models.calibration.watcher import InputsPartedError, Watcher
from polyad.models.mode import eval_mode
from polyad.models.uncalled_layers import uncalled_layers
from polyad.statistics import Moments, Stats

OTHER_DATA = "calibrate with what the model takes as its one argument, or use a method that reads no activations"


def join_statistics(first: Stats, second: Stats) -> dict[str, Moments]:
    """The statistics of two parts of the data together. Tensors that were shared stay shared."""
    joined: dict[tuple[int, int], Tensor] = {}

    def join(a: Moments, b: Moments, name: str) -> Tensor:
        x, y = a.values[name], b.values[name]
        if (id(x), id(y)) not in joined:
            joined[id(x), id(y)] = STATISTICS[name].join(x, y, b.count / (a.count + b.count))
        return joined[id(x), id(y)]

    return {
        path: Moments(a.count + second[path].count, **{name: join(a, second[path], name) for name in a.values})
        for path, a in first.items()
    }


def collect(
    model: nn.Module,
    needs: Mapping[str, Iterable[str]],
    batches: Iterable[Tensor],
    *,
    callback: Callback | None = None,
) -> dict[str, Moments]:
    """Run ``model`` over batches and collect, by module path, the statistics in ``needs``.

    A batch is what the model takes as its one argument: token ids (batch, tokens) or (tokens,), pictures
    (batch, channels, height, width). The rows of a convolution's input are its patches, as of its kernel's matrix.
    Modules that get the very same tensor (queries, keys and values) share its statistics: they are computed once.
    The model runs in evaluation mode and is left in the mode that it had. The output head is not run unless it is
    asked about. Cost: one forward pass, and for each second moment 2 in² operations a token. NaN or infinite
    activations are refused, naming the module; statistics that memory does not hold before the first pass.
    """
    asked = {path: frozenset(names) for path, names in needs.items() if names}
    for path, names in asked.items():
        if names - STATISTICS.keys():
            raise ValueError(f"{path} needs {sorted(names - STATISTICS.keys())}; there are {', '.join(STATISTICS)}")
    refuse_too_large(model, asked)
    parts = list(batches)
    if not sum(batch.numel() for batch in parts):
        raise ValueError("the calibration data is empty; give at least one window of tokens")
    try:
        return _run(model, asked, parts, callback, share=True)
    except InputsPartedError:  # layers that had one input have two now: each counts for itself
        return _run(model, asked, parts, callback, share=False)


def _run(
    model: nn.Module,
    asked: Mapping[str, frozenset[str]],
    batches: Sequence[Tensor],
    callback: Callback | None,
    *,
    share: bool,
) -> dict[str, Moments]:
    watchers = {path: Watcher(path, names, model.get_submodule(path)) for path, names in asked.items()}
    body = getattr(model, "base_model", model)
    inside = {id(module) for module in body.modules()}
    runner = body if all(id(model.get_submodule(path)) in inside for path in asked) else model
    last: list[tuple[Watcher, Tensor, int]] = []  # the last input, that layers may share
    with torch.no_grad(), eval_mode(model), ExitStack() as hooks:
        for path, watcher in watchers.items():
            for handle in watcher.attach(model.get_submodule(path), last if share else None):
                hooks.callback(handle.remove)
        for step, batch in enumerate(batches, 1):
            with in_words(f"{type(model).__name__} cannot be run on the calibration data", OTHER_DATA):
                runner(batch[None] if batch.ndim == 1 else batch)
            last.clear()
            if callback is not None:
                callback(step, len(batches), {})
    _refuse_uncalled(model, [path for path, watcher in watchers.items() if not watcher.calls])
    return {path: watcher.moments() for path, watcher in watchers.items()}


def _refuse_uncalled(model: nn.Module, paths: Sequence[str]) -> None:
    """Refuse layers that no batch reached, and say why of the first."""
    if paths:
        reason = uncalled_layers(model).reasons.get(
            paths[0], "its owner may read the weight without calling it, or no token reaches it"
        )
        raise ValueError(
            f"{paths[0]} is never called on the calibration data ({reason}), so nothing is known of it; leave it out "
            "of the selection"
        )
