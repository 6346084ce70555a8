"""The least that a model of transformers can be run on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SAMPLES = 4000
"""A quarter of a second of sound."""


def small_inputs(model: nn.Module) -> list[dict[str, Any]]:
    """Keyword arguments for one short forward pass, each to be tried where those before it do not fit; none where a
    model does not say what it takes."""
    name, config = getattr(model, "main_input_name", None), getattr(model, "config", None)
    if name is None or config is None:
        return []
    first = next(model.parameters(), torch.zeros(()))
    stated: Any = model
    try:
        inputs: dict[str, Any] = dict(stated.dummy_inputs) if name == "input_ids" else {name: _numbers(name, config)}
        size = getattr(config.get_text_config(), "vocab_size", None) or 2
    except (AttributeError, TypeError):
        return []
    if getattr(config, "is_encoder_decoder", False):
        inputs.setdefault("decoder_input_ids", inputs.get("input_ids", torch.zeros(1, 2, dtype=torch.long)))
    for key, value in inputs.items():
        if isinstance(value, Tensor):
            value = value % size if key.endswith("input_ids") else value
            inputs[key] = value.to(first.device, first.dtype if value.is_floating_point() else value.dtype)
    attempts = [inputs]
    if name == "input_ids" and hasattr(getattr(config, "vision_config", None), "image_size"):
        rows = len(inputs["input_ids"])
        picture = _numbers("pixel_values", config).expand(rows, -1, -1, -1).to(first)
        attempts.append({**inputs, "pixel_values": picture})
    return [*attempts, {**inputs, "use_cache": False}]


def _numbers(name: str, config: Any) -> Tensor:
    """A picture, or a sound as samples or as a spectrum."""
    if name == "pixel_values":
        vision = getattr(config, "vision_config", config)
        size = vision.image_size
        sides = (size, size) if isinstance(size, int) else tuple(size)
        channels = getattr(vision, "num_channels", None) or getattr(vision, "in_channels", 3)
        return torch.linspace(-1, 1, channels * sides[0] * sides[1]).reshape(1, -1, *sides)
    if name == "input_values":
        return torch.linspace(-1, 1, SAMPLES)[None]
    frames = 2 * config.max_source_positions
    return torch.linspace(-1, 1, config.num_mel_bins * frames).reshape(1, -1, frames)
