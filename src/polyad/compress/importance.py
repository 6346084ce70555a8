"""The change of the model's output when one item alone is cut."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from polyad._callback import Callback
from polyad.allocate import Curve
from polyad.compress.budget import relative_curves
from polyad.compress.draft import Draft
from polyad.compress.item import Item
from polyad.data.calibration import Calibration
from polyad.models.blocks import decoder_layers
from polyad.models.mode import eval_mode
from polyad.models.replacement import Replacement, modules
from polyad.models.surgery import replace
from polyad.statistics import Stats

EVERY = 2
"""Positions between those at which the distributions are compared: neighbours say much the same."""
PROBE_SHARE = 0.5
"""The share of an item's cost to which it alone is cut when its importance is measured."""


def item_importance(
    model: Any,
    items: list[Item],
    curves: Mapping[str, Curve],
    stats: Stats,
    text: Calibration,
    callback: Callback | None,
) -> dict[str, float]:
    """For every item, the change of output that cutting it alone to half causes, over its own error at that size."""
    places = {item.name: curves[item.name].affordable(PROBE_SHARE * curves[item.name].whole) for item in items}

    def cut(item: Item) -> dict[str, nn.Module]:
        replacement = item.solve(Draft(model), stats, int(curves[item.name].sizes[places[item.name]]))
        return modules(model, replacement or Replacement({}), [item.block] if item.block is not None else [])

    lossy = [item for item in items if curves[item.name].errors[places[item.name]] > 0]
    measure = divergences if predicts(model) else output_changes
    with eval_mode(model):
        moved = measure(model, {item.name: partial(cut, item) for item in lossy}, text.probe, callback=callback)
    shares = relative_curves(curves)
    least = 1e-3 * median(moved.values()) if moved else 0.0
    return {name: max(change, least) / float(shares[name].errors[places[name]]) for name, change in moved.items()}


def divergences(
    model: Any,
    items: Mapping[str, Callable[[], dict[str, nn.Module]]],
    windows: Tensor,
    *,
    callback: Callback | None = None,
) -> dict[str, float]:
    """Mean KL divergence, in nats, of the next-token distribution from the original's when one item is replaced.

    ``items`` maps a name to a function that makes the modules to put in place, by path; ``windows`` are token ids
    (count, length). The layers before an item's are not run again: their output is kept. Cost: about half a
    forward pass an item, and windows * length * width numbers a layer.
    """
    layers = list(decoder_layers(model))
    home = layers[0].rpartition(".")[0]
    at = torch.arange(0, windows.shape[1], EVERY)
    with torch.no_grad():
        hidden, reference = _reference(model, layers, windows, at)
        skips = _skips(model, home, layers, hidden, at, reference)
        divergence: dict[str, float] = {}
        for number, (name, make) in enumerate(items.items(), 1):
            modules = make()
            first = min(_layer_of(path, layers) for path in modules) if skips else -1
            undo = replace(model, modules)
            try:
                logits = _logits_from(model, home, first, hidden[first] if first >= 0 else None, windows, at)
            finally:
                undo()
            divergence[name] = _divergence(reference, logits)
            if callback is not None:
                callback(number, len(items), {"divergence": divergence[name]})
    return divergence


def predicts(model: Any) -> bool:
    """True if a model predicts the next token, so that its output can be compared as a distribution."""
    return bool(getattr(model, "can_generate", lambda: False)())


def output_changes(
    model: Any,
    items: Mapping[str, Callable[[], dict[str, nn.Module]]],
    inputs: Tensor,
    *,
    callback: Callback | None = None,
) -> dict[str, float]:
    """Squared change of the model's output, relative to its square, when one item is replaced: for any model.

    Of a model of transformers the output is the first tensor that it returns (the last hidden state of an encoder).
    ``inputs`` is a batch (count, ...). Cost: a forward pass an item.
    """
    with torch.no_grad():
        reference = first_tensor(model(inputs)).float()
        scale = max(float(reference.square().sum()), 1e-300)
        change: dict[str, float] = {}
        for number, (name, make) in enumerate(items.items(), 1):
            undo = replace(model, make())
            try:
                change[name] = float((first_tensor(model(inputs)).float() - reference).square().sum()) / scale
            finally:
                undo()
            if callback is not None:
                callback(number, len(items), {"change": change[name]})
    return change


def first_tensor(output: Any) -> Tensor:
    """The first tensor of a model's output."""
    while not isinstance(output, Tensor):
        try:
            output = output[0]
        except (KeyError, IndexError, TypeError):
            raise ValueError(
                f"the model returns a {type(output).__name__}, which begins with no tensor; give importance=False"
            ) from None
    return output


def _reference(model: Any, layers: list[str], windows: Tensor, at: Tensor) -> tuple[list[Tensor], Tensor]:
    hidden: list[Tensor] = []
    hooks = [
        model.get_submodule(path).register_forward_pre_hook(
            lambda _m, args, kwargs: hidden.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
        for path in layers
    ]
    try:
        logits = model(windows, use_cache=False, logits_to_keep=at).logits
    finally:
        for hook in hooks:
            hook.remove()
    return hidden, logits.float().log_softmax(-1)


def _skips(model: Any, home: str, layers: list[str], hidden: list[Tensor], at: Tensor, reference: Tensor) -> bool:
    """True if running from the middle gives the whole model's result: some decoders scale their embeddings, and the
    layers of some return more than a tensor."""
    middle = len(layers) // 2
    try:
        logits = _logits_from(model, home, middle, hidden[middle], None, at)
    except Exception:  # whatever a model raises that takes no embeddings, or other outputs of its layers
        return False
    return _divergence(reference, logits) < 1e-4


def _logits_from(
    model: Any, home: str, first: int, hidden: Tensor | None, windows: Tensor | None, at: Tensor
) -> Tensor:
    if hidden is None:
        return model(windows, use_cache=False, logits_to_keep=at).logits
    with _skip_layers(model, home, first):
        return model(inputs_embeds=hidden, use_cache=False, logits_to_keep=at).logits


@contextmanager
def _skip_layers(model: nn.Module, home: str, first: int) -> Iterator[None]:
    """Let the layers before ``first`` return their input, each in its place, since masks depend on the place."""
    whole: Any = model.get_submodule(home)
    model.set_submodule(home, nn.ModuleList([*map(_idle, list(whole)[:first]), *list(whole)[first:]]))
    try:
        yield
    finally:
        model.set_submodule(home, whole)


def _idle(layer: nn.Module) -> nn.Module:
    idle: Any = copy.copy(layer)
    idle.forward = lambda hidden_states, *_args, **_kwargs: hidden_states
    return idle


def _divergence(reference: Tensor, logits: Tensor) -> float:
    other = logits.float().log_softmax(-1)
    return float((reference.exp() * (reference - other)).sum(-1).mean())


def _layer_of(path: str, layers: list[str]) -> int:
    """The number of the layer in which a path stands; -1 of an embedding and of whatever else is in none."""
    return next((i for i, layer in enumerate(layers) if path == layer or path.startswith(layer + ".")), -1)
