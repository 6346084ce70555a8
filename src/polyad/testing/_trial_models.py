"""Decoders on which cuts of blocks and rescalings are tried, and replacements put into them for a while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from polyad.models.blocks import Block
from polyad.models.replacement import Replacement, put_in_place
from polyad.testing.decoders import random_decoder, random_tokens

VOCABULARY = 500
SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 64, "bos_token_id": None,
    "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
"""The size of a decoder: four query heads of eight channels share two key heads."""


def decoder(family: str = "Llama", **changed: Any) -> Any:
    """A random causal model of a family, of ``SHAPE`` but for what is changed."""
    return random_decoder(family, **{**SHAPE, **changed})


def tokens(batch: int, length: int) -> Tensor:
    """Random token ids (batch, length)."""
    return random_tokens(batch, length, VOCABULARY)


def logits(model: Any, ids: Tensor) -> Tensor:
    """The predictions of a model for every token, without gradients."""
    with torch.no_grad():
        return model(ids).logits


@contextmanager
def in_effect(model: nn.Module, replacement: Replacement, blocks: Iterable[Block] = ()) -> Iterator[None]:
    """Put a replacement into a model for as long as the context lasts."""
    undo = put_in_place(model, replacement, blocks)
    try:
        yield
    finally:
        undo()
