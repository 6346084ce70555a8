"""Fisher information of keys and values: the effect of each direction on the model's output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from transformers import DynamicCache, EncoderDecoderCache, PreTrainedModel

from polyad._callback import Callback
from polyad.cache.codec import Make, arguments
from polyad.cache.host.cache import rotations_of
from polyad.cache.host.model_layers import Use
from polyad.cache.host.probe import uses_of_cache


def fisher(
    model: PreTrainedModel,
    make: Make,
    windows: Iterable[Tensor],
    *,
    sinks: int = 0,
    generator: Generator | None = None,
    callback: Callback | None = None,
) -> list[dict[str, Tensor]]:
    """Fisher information of every layer's keys and values on windows of token ids; (H d, H d) each.

    ``key_fisher`` and ``value_fisher`` are E[g gᵀ] over tokens, for g the gradient, with all H heads of d channels
    side by side, of the log-likelihood of a text that the model itself draws after each prefix. To second order,
    errors e that are independent of each other raise the divergence of the model's output by half the sum of eᵀ F e,
    so that the figures of all layers, and of keys and values, are in one unit.

    The first ``sinks`` tokens of each window are left out, as a cache that keeps them exact does not round them.

    Keys are those before rotation where the codec that ``make`` makes stores them so. One forward and one backward
    pass, which keep a window's activations and its logits.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    before = bool(getattr(arguments(make), "before_rotation", False))
    sums: dict[int, dict[str, Tensor]] = {}
    uses, windows = uses_of_cache(model), list(windows)
    count = 0
    for step, window in enumerate(windows, 1):
        ids = window if window.ndim == 2 else window[None]
        cache = _Gradients(model, uses, before)
        held = EncoderDecoderCache(cache, DynamicCache()) if model.config.is_encoder_decoder else cache
        with torch.enable_grad():
            logits = model(**inputs_of(model, ids), past_key_values=held, use_cache=True).logits.flatten(0, 1).float()
            tokens = torch.multinomial(logits.detach().softmax(-1).cpu(), 1, generator=generator)[:, 0]
            loss = F.cross_entropy(logits, tokens.to(logits.device), reduction="sum")
            states = [t for pair in cache.seen.values() for t in pair]
            grads = iter(torch.autograd.grad(loss, states, materialize_grads=True))
        count += ids[:, sinks:].numel()
        for layer in cache.seen:
            keys, values = cache.undo_rotation(layer, next(grads)), next(grads)
            for name, grad in (("key_fisher", keys), ("value_fisher", values)):
                rows = grad[..., sinks:, :].transpose(1, 2).flatten(2).flatten(0, 1)
                rows = rows.to(torch.promote_types(grad.dtype, torch.float32))
                mine = sums.setdefault(layer, {})
                mine[name] = mine.get(name, 0) + rows.mT @ rows
        if callback is not None:
            callback(step, len(windows), {"stage": "gradients"})
    return [{name: total / count for name, total in sums[layer].items()} for layer in uses]


def inputs_of(model: Any, ids: Tensor) -> dict[str, Tensor]:
    """The inputs that let a model's decoder read these tokens; an encoder-decoder reads them on both sides."""
    return {"input_ids": ids, "decoder_input_ids": ids} if model.config.is_encoder_decoder else {"input_ids": ids}


class _Gradients(DynamicCache):
    """A plain cache that remembers the tensors it was given for the layers that codecs can hold."""

    def __init__(self, model: Any, uses: Mapping[int, Use], before: bool) -> None:
        super().__init__(config=model.config.get_text_config(decoder=True))
        self.uses, self.rotations = uses, rotations_of(uses) if before else {}
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        if layer_idx not in self.uses:
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)
        for t in (key_states, value_states):
            if not t.requires_grad:  # the parameters are frozen
                t.requires_grad_()
        self.seen[layer_idx] = key_states, value_states
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    def undo_rotation(self, layer: int, grad: Tensor) -> Tensor:
        rotation = None if self.uses[layer].rotated is False else self.rotations.get(self.uses[layer].table)
        return grad if rotation is None else rotation.undo(grad, 0)
