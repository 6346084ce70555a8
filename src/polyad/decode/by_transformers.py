"""Generating as transformers does, by a model's own forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from polyad.decode.clock import Clock


def generate_by_transformers(
    model: Any, ids: Tensor, kv: Any, clock: Clock, streamer: Any, generator: Any, settings: dict[str, Any]
) -> Tensor:
    """Token ids continued by the model's own ``generate``, with a cache or transformers' own, the clock running."""
    settings = settings | {"stopping_criteria": [*settings["stopping_criteria"], clock]}
    more = {} if kv is None else {"past_key_values": kv, "use_cache": True}  # many trained models say no
    if streamer is not None:
        more["streamer"] = _Behind(streamer)
    with _drawing_from(generator, ids.device):
        clock.start()
        return model.generate(ids, **list_settings(settings), **more)


class _Behind:
    """A streamer without the prompt, which transformers puts first."""

    def __init__(self, streamer: Any) -> None:
        self._streamer, self._prompt = streamer, True

    def put(self, value: Tensor) -> None:
        if not self._prompt:
            self._streamer.put(value)
        self._prompt = False

    def end(self) -> None:
        self._streamer.end()


@contextmanager
def _drawing_from(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """Let torch's global generator continue another, which afterwards stands where the global one came to."""
    if generator is None:
        yield
        return
    globally = torch.cuda.default_generators[device.index or 0] if device.type == "cuda" else torch.default_generator
    before = globally.get_state()
    globally.set_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(globally.get_state())
        globally.set_state(before)


def list_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with criteria and processors in the lists that transformers wants."""
    from transformers import LogitsProcessorList, StoppingCriteriaList

    kinds = {"stopping_criteria": StoppingCriteriaList, "logits_processor": LogitsProcessorList}
    return settings | {name: kind(settings[name]) for name, kind in kinds.items() if name in settings}
