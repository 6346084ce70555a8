"""Bases of heads trained so that every prefix of them serves, and ranks for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel

from polyad import _check
from polyad._callback import Callback
from polyad.allocate import Curve, greedy
from polyad.cache.codecs.matryoshkakv import principal_basis
from polyad.cache.host.probe import uses_of_cache

SIDES = ("key", "value")
PARTS = 8
"""Ranks that training draws are multiples of one part in this many of a head's channels."""


def matryoshka_bases(
    model: PreTrainedModel,
    seen: Sequence[dict[str, Tensor]],
    windows: Iterable[Tensor],
    *,
    max_iter: int = 40,
    rate: float = 1e-2,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> list[dict[str, Tensor]]:
    """Train bases for ``MatryoshkaKV`` that keep the model's output at random ranks, and add them to the statistics.

    A basis is U (I - A)(I + A)⁻¹ with U the principal one and A antisymmetric, so it stays orthogonal. Each step cuts
    every head's keys and values to a rank of its own, drawn evenly, on one window, and takes an Adam step of size
    ``rate``, falling to zero, on the divergence of the model's output from that without cuts plus the relative
    squared error of its last hidden state. The model's weights stay as they are. ``windows`` are used in turn. A step
    costs a forward pass without and one with gradients.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    windows = list(windows)
    start = _bases(model, seen)
    free = {name: torch.zeros_like(u, requires_grad=True) for name, u in start.items()}
    optimiser = torch.optim.Adam(free.values(), lr=rate)
    for step in range(max_iter):
        optimiser.param_groups[0]["lr"] = rate * (1 - step / max_iter)
        ids = windows[step % len(windows)]
        ids = ids if ids.ndim == 2 else ids[None]
        masks = {name: _random_mask(u, generator) for name, u in start.items()}
        with torch.enable_grad():
            turned = {name: u @ _cayley(free[name]) for name, u in start.items()}
            loss = _loss(model, ids, seen, turned, masks)
            grads = torch.autograd.grad(loss, list(free.values()))
        for parameter, grad in zip(free.values(), grads, strict=True):
            parameter.grad = grad
        optimiser.step()
        if callback is not None:
            callback(step + 1, max_iter, {"stage": "bases", "loss": float(loss.detach())})
    layers = [dict(layer) for layer in seen]
    for (layer, side), u in start.items():
        layers[layer][f"{side}_basis"] = (u @ _cayley(free[layer, side].detach())).to(u.dtype)
    return layers


def matryoshka_ranks(
    model: PreTrainedModel,
    seen: Sequence[dict[str, Tensor]],
    windows: Iterable[Tensor],
    keep: float,
    *,
    unit: int = 16,
    callback: Callback | None = None,
) -> list[dict[str, Tensor]]:
    """Add ranks of the keys and values of every head, which together keep ``keep`` of all numbers, to the statistics.

    Every head's keys, and values, are cut alone to each multiple of ``unit``; the relative squared error of the last
    hidden state on ``windows`` is what the greedy allocation then adds up. Departs from the paper, which measures
    again after every step of its search. One forward pass a head, side and rank.
    """
    _check.share("keep", keep)
    bases = _bases(model, seen)
    batches = [ids if ids.ndim == 2 else ids[None] for ids in windows]
    width = next(iter(bases.values())).shape[-1]
    sizes = [*range(unit, width, unit), width]
    exact = [_hidden(model, ids)[1] for ids in batches]
    curves: dict[str, Curve] = {}
    for (layer, side), u in bases.items():
        for head in range(u.shape[0]):
            errors = [
                _error_of_cut(model, batches, exact, seen, bases, (layer, side), head, size) for size in sizes[:-1]
            ]
            curve = np.minimum.accumulate(np.array([*errors, 0.0]))
            curves[f"{layer} {side} {head}"] = Curve(np.array(sizes), np.array(sizes, dtype=float), curve)
        if callback is not None:
            callback(layer + 1, len(seen), {"stage": "ranks"})
    ranks = greedy(curves, keep * width * len(curves))
    layers = [dict(layer) for layer in seen]
    for (layer, side), u in bases.items():
        chosen_here = [ranks[f"{layer} {side} {head}"] for head in range(u.shape[0])]
        layers[layer][f"{side}_ranks"] = torch.tensor(chosen_here)
    return layers


def _error_of_cut(
    model: Any, batches: Any, exact: Any, seen: Any, bases: Any, item: tuple[int, str], head: int, size: int
) -> float:
    mask = torch.ones(bases[item].shape[0], 1, bases[item].shape[-1])
    mask[head, :, size:] = 0
    total = 0.0
    for ids, right in zip(batches, exact, strict=True):
        hidden = _hidden(model, ids, _Cut(model, seen, {item: bases[item]}, {item: mask}))[1]
        total += float((hidden - right).square().sum() / right.square().sum())
    return total / len(batches)


def _bases(model: Any, seen: Sequence[dict[str, Tensor]]) -> dict[tuple[int, str], Tensor]:
    layers = zip(seen, uses_of_cache(model).values(), strict=True)
    return {
        (i, side): principal_basis(layer, side, use.heads) for i, (layer, use) in enumerate(layers) for side in SIDES
    }


def _random_mask(u: Tensor, generator: Generator) -> Tensor:
    """A mask (heads, 1, d) of the first few coordinates, a number of its own for each head."""
    heads, width = u.shape[0], u.shape[-1]
    ranks = torch.randint(1, PARTS + 1, (heads, 1, 1), generator=generator) * width // PARTS
    return (torch.arange(width) < ranks.clamp_min(1)).to(u.device, u.dtype)


def _cayley(free: Tensor) -> Tensor:
    a = free - free.mT
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    return torch.linalg.solve(eye + a, eye - a)


def _hidden(model: Any, ids: Tensor, cache: Any = None) -> tuple[Tensor, Tensor]:
    """Logits and last hidden state, without gradients."""
    with torch.no_grad():
        out = model(ids, past_key_values=cache, use_cache=cache is not None, output_hidden_states=True)
    return out.logits, out.hidden_states[-1]


def _loss(model: Any, ids: Tensor, seen: Any, bases: Any, masks: Any) -> Tensor:
    logits, hidden = _hidden(model, ids)
    cache = _Cut(model, seen, bases, masks)
    out = model(ids, past_key_values=cache, use_cache=True, output_hidden_states=True)
    said = [x.flatten(0, -2).float().log_softmax(-1) for x in (out.logits, logits)]
    divergence = F.kl_div(said[0], said[1], log_target=True, reduction="batchmean")
    error = (out.hidden_states[-1] - hidden).square().sum() / hidden.square().sum()
    return divergence + error


class _Cut(DynamicCache):
    """A plain cache that passes keys and values on in the coordinates that masks leave."""

    def __init__(
        self, model: Any, seen: Sequence[dict[str, Tensor]], bases: Mapping[Any, Tensor], masks: Mapping[Any, Tensor]
    ) -> None:
        super().__init__(config=model.config.get_text_config(decoder=True))
        self.numbers = {layer: n for n, layer in enumerate(uses_of_cache(model))}
        self.means, self.bases, self.masks = seen, bases, masks

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        number = self.numbers.get(layer_idx)
        if number is not None:
            key_states, value_states = (
                self._cut(x, (number, side)) for x, side in zip((key_states, value_states), SIDES, strict=True)
            )
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    def _cut(self, x: Tensor, item: tuple[int, str]) -> Tensor:
        if item not in self.bases:
            return x
        u, mask = self.bases[item].to(x.dtype), self.masks[item].to(x.dtype)
        mean = self.means[item[0]][f"{item[1]}_mean"].to(x.dtype).reshape(u.shape[0], 1, -1)
        return ((x - mean) @ u * mask) @ u.mT + mean
