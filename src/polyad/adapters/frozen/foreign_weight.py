"""Weights that other libraries store as something else than their numbers: recognised, and read by their means."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from polyad.interop.bitsandbytes import dequantized_weight

NUMBERS = frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16})
"""The dtypes of weights that are their own numbers; eight bits and less come with scales."""


def is_foreign(weight: Tensor) -> bool:
    """True for a weight whose entries are codes: of an integer or 8-bit dtype, or of a class that dequantises."""
    if weight.dtype not in NUMBERS:
        return True
    kind = type(weight)
    return kind not in (Tensor, nn.Parameter) and getattr(kind, "dequantize", None) is not Tensor.dequantize


def numbers_of(layer: nn.Module, weight: Tensor) -> Tensor:
    """The numbers of a foreign weight of a layer; ValueError where only the layer's own forward pass knows them."""
    numbers = dequantized_weight(layer)
    if numbers is not None:
        return numbers
    if weight.is_quantized or getattr(type(weight), "dequantize", None) is not Tensor.dequantize:
        return weight.dequantize()
    raise ValueError(
        f"the weight of this {type(layer).__name__} is stored as {weight.dtype} in a way that only its own library "
        "can read; choose a method that does not read the weight, or put a dense layer in its place first"
    )
