"""Statistics of keys, values and queries, layer by layer, on calibration text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from polyad._callback import Callback
from polyad._card import methods
from polyad.cache.calibration.fisher import fisher, inputs_of
from polyad.cache.codec import Codec, Make, Place, arguments
from polyad.cache.host.cache import cache_for, refuse_indirect
from polyad.cache.host.probe import uses_of_cache
from polyad.cache.host.rotation import Rotation
from polyad.formats import Dense

FISHER = frozenset({"key_fisher", "value_fisher"})
QUERIES = frozenset({"queries", "metric"})


def observe(
    model: PreTrainedModel,
    make: Make,
    windows: Iterable[Tensor],
    *,
    sinks: int = 0,
    callback: Callback | None = None,
) -> list[dict[str, Tensor]]:
    """Second moments of what each layer's attention sees on windows of token ids, for a codec that ``make`` makes.

    Given for every layer that a cache holds, in float32 or better, over d channels a head and H key heads:

    - ``keys``, ``values``: E[x xᵀ] with all heads side by side, (H d, H d); ``key_mean``, ``value_mean``: (H d,).
    - ``queries``: E[q qᵀ] of the queries of each key head, (H, d, d), times the scaling of the scores squared.
    - ``metric``: the same after a rotation by every relative position up to the window's length, averaged: the
      expected square of a score is its inner product with E[k kᵀ].

    An encoder-decoder reads each window on both sides.

    Keys and queries are those before rotation where the codec stores keys so, and as they are rotated otherwise,
    where ``metric`` equals ``queries``. One forward pass of the decoder without its head. Codecs whose card needs
    them get ``key_fisher`` and ``value_fisher`` (see ``fisher``), for a forward and a backward pass more. The first
    ``sinks`` tokens of each window, which the cache keeps exact, are left out of keys and values.
    """
    kind = _Unrotated if getattr(arguments(make), "before_rotation", False) else _Observer
    observers: dict[int, _Observer] = {}

    def watch(place: Place) -> _Observer:
        return observers.setdefault(place.layer, kind(place, sinks))

    watch.before_rotation = kind.before_rotation  # pyright: ignore[reportFunctionMemberAccess] - as a codec's class
    windows = list(windows)
    _refuse_other_inputs(model)
    _check_windows(windows, sinks)
    cache = cache_for(model, watch, window=0)  # so that what is wrong is said before any work
    if _needed_statistics(make) & QUERIES:
        for number, use in uses_of_cache(model).items():
            refuse_indirect(number, use, arguments(make).__name__)
    with torch.no_grad():
        for step, window in enumerate(windows, 1):
            cache = cache_for(model, watch, window=0)
            ids = window if window.ndim == 2 else window[None]
            model.base_model(**inputs_of(model, ids), past_key_values=cache, use_cache=True)
            if callback is not None:
                callback(step, len(windows), {"stage": "observing"})
        layers = zip(observers.values(), cache.held, strict=True)
        statistics = [observer.statistics(layer.rotation) for observer, layer in layers]
    if _needed_statistics(make) & FISHER:
        gradients = fisher(model, make, windows, sinks=sinks, callback=callback)
        statistics = [{**layer, **more} for layer, more in zip(statistics, gradients, strict=True)]
    return statistics


def _refuse_other_inputs(model: PreTrainedModel) -> None:
    """Refuse a model whose encoder reads something else than text, or that has nothing for a codec to hold."""
    if model.config.is_encoder_decoder and model.main_input_name != "input_ids":
        raise ValueError(
            f"{type(model).__name__} takes {model.main_input_name}, so that no text calibrates a cache of it; choose "
            "a codec that needs no calibration, such as kivi"
        )
    if not uses_of_cache(model):
        raise ValueError(
            f"every layer of {type(model).__name__} has a sliding window or no keys at all, so that a codec has "
            "nothing to hold; use transformers' own cache"
        )


def _check_windows(windows: Sequence[Tensor], sinks: int) -> None:
    if min((window.shape[-1] for window in windows), default=sinks + 1) <= sinks:
        raise ValueError(f"sinks={sinks} leaves nothing of a window; give longer windows")
    if not sum(window.numel() for window in windows):
        raise ValueError("the calibration data is empty; give at least one window of tokens")


def _needed_statistics(make: Make) -> frozenset[str]:
    """The statistics that the codec's card asks for."""
    cards = [card for card in methods("codec") if card.function is arguments(make)]
    return cards[0].needs.get("", frozenset()) if cards else frozenset()


class _Observer(Codec):
    def __init__(self, place: Place, sinks: int) -> None:
        self.place, self.sinks, self.count = place, sinks, 0
        self.sums: dict[str, Tensor] = {}

    def encode(self, keys: Tensor, values: Tensor, queries: Tensor) -> tuple[Dense, Dense]:
        wide = torch.promote_types(keys.dtype, torch.float32)
        scaling = float(getattr(self.place.module, "scaling", queries.shape[-1] ** -0.5))  # pyright: ignore
        self.count += keys.shape[0] * (keys.shape[2] - self.sinks)
        for name, x in (("key", keys), ("value", values)):
            rows = x[:, :, self.sinks :].transpose(1, 2).flatten(2).flatten(0, 1).to(wide)
            self.add(f"{name}s", rows.mT @ rows)
            self.add(f"{name}_mean", rows.sum(0))
        if not queries.shape[2]:  # a model that attends with other keys than the cache's
            return Dense(keys), Dense(values)
        grouped = queries.to(wide).unflatten(1, (self.place.key_heads, -1)) * scaling
        rows = grouped.permute(1, 0, 2, 3, 4).flatten(1, 3)
        self.add("queries", rows.mT @ rows / grouped.shape[2])
        return Dense(keys), Dense(values)

    def add(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def statistics(self, rotation: Rotation | None) -> dict[str, Tensor]:
        means = {name: total / self.count for name, total in self.sums.items()}
        for name, value in means.items():
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"the {name} of layer {self.place.layer} hold NaN or infinite numbers on the text")
        if "queries" not in means:
            return means
        metric = means["queries"] if rotation is None else rotation_average(means["queries"], rotation)
        return {**means, "metric": metric}


class _Unrotated(_Observer):
    before_rotation: ClassVar[bool] = True


def rotation_average(moment: Tensor, rotation: Rotation) -> Tensor:
    """The mean of R M Rᵀ over the rotations R by each position of the last window; M of shape (heads, d, d)."""
    assert rotation.positions is not None
    length = rotation.positions.shape[-1]
    values, vectors = torch.linalg.eigh(moment)
    roots = vectors.mT * values.clamp(min=0).sqrt().unsqueeze(-1)  # (heads, d, d): rows whose squares sum to M
    total = torch.zeros_like(moment)
    for i in range(moment.shape[-1]):
        turned = rotation.turn(roots[:, i, None].expand(-1, length, -1).unsqueeze(0), 0)[0]
        total += turned.mT @ turned
    return total / length
