"""Decoders of a few wide layers with random weights: full rank in 4 bits, and two factors of 4 bits each."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from benchmarks.decoding.timers import generation, judged, turns
from benchmarks.measuring import Row
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from polyad.formats import Product
from polyad.layers import Linear
from polyad.layers.kernels import prepare_layers
from polyad.quantize import round_to_nearest

KEEP, STEP = 0.7, 32
"""The share of the numbers of a matrix that its factors keep, and what ranks are multiples of."""
POINTS = 0.1
PROMPT, TOKENS = [1, 5, 7, 3, 9, 2, 4, 8], 24


@torch.no_grad()
def random_decoder(width: int, layers: int, keep: float | None) -> tuple[Any, int]:
    """A decoder whose layers are quantised, and the bytes of these; factors are random too: only time is measured."""
    config = LlamaConfig(
        hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=layers, vocab_size=512,
        num_attention_heads=width // 64, num_key_value_heads=width // 256, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    decoder: Any = LlamaForCausalLM(config)
    model = decoder.to(torch.bfloat16).eval()
    nbytes = 0
    for path, layer in list(model.model.layers.named_modules()):
        if isinstance(layer, nn.Linear):
            parent, _, name = path.rpartition(".")
            weight = _quantise(layer.weight, keep)
            nbytes += weight.nbytes
            setattr(model.model.layers.get_submodule(parent), name, Linear(weight))
    return prepare_layers(model), nbytes


def _quantise(weight: torch.Tensor, keep: float | None) -> Any:
    n, k = weight.shape
    if keep is None:
        return round_to_nearest(weight, bits=4, group=32)
    rank = int(keep * n * k / (n + k)) // STEP * STEP
    factors = torch.randn(n, rank, dtype=weight.dtype), torch.randn(rank, k, dtype=weight.dtype) / rank
    return Product(tuple(round_to_nearest(factor, bits=4, group=32) for factor in factors))


def random_ranks(width: int, layers: int) -> Row:
    """Factors beside full rank in the loop: faster by the share of bytes saved, less ten points."""
    low, few = random_decoder(width, layers, KEEP)
    full, all_of_them = random_decoder(width, layers, None)
    sides = {"low rank": partial(generation, low, None, PROMPT, TOKENS),
             "full rank": partial(generation, full, None, PROMPT, TOKENS)}  # fmt: skip
    share = few / all_of_them
    return judged(turns(sides), [("low rank", "full rank", share + POINTS)], bytes=share, layers=layers)
