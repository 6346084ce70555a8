"""Weights of the package bitsandbytes, 8-bit integers and 4-bit codes, read by its own means."""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor, nn


def dequantized_weight(layer: nn.Module) -> Tensor | None:
    """The numbers (out, in) that a layer of bitsandbytes stands for; None for other layers.

    Its integers lose their scales to the layer's state at the first forward pass, so that both places are read.
    """
    weight: Any = layer.weight
    if type(weight).__module__.partition(".")[0] != "bitsandbytes":
        return None
    functional: Any = importlib.import_module("bitsandbytes.functional")
    state = getattr(weight, "quant_state", None)
    if state is not None:
        return functional.dequantize_4bit(weight.data, state)
    scales = getattr(weight, "SCB", None)
    scales = getattr(getattr(layer, "state", None), "SCB", None) if scales is None else scales
    return None if scales is None else functional.int8_vectorwise_dequant(weight.data, scales)
