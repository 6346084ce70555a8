"""Small random decoders of transformers, on which contracts of whole blocks and models are held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from polyad.models.blocks import Block
from polyad.models.replacement import Replacement, modules
from polyad.models.surgery import replace
from polyad.testing._contract import seeded

VOCABULARY = 500
SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 64, "bos_token_id": None,
    "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
"""The size of a decoder: four query heads of eight channels share two key heads."""


def decoder(family: str = "Llama", *, seed: int = 0, **changed: Any) -> Any:
    """A causal language model of a family of transformers, of ``SHAPE`` but for what is changed; nothing is loaded.

    >>> decoder("Qwen2", num_hidden_layers=1).model.layers[0].self_attn.q_proj.bias.shape
    torch.Size([32])
    """
    import transformers

    config = getattr(transformers, f"{family}Config")(**{**SHAPE, **changed})
    return randomise_weights(getattr(transformers, f"{family}ForCausalLM")(config), seed).eval()


def randomise_weights(model: nn.Module, seed: int = 0) -> Any:
    """The model with random numbers for which activations are of the size that trained ones have, biases included."""
    generator = seeded(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = 1.0 if "embed" in name else 1.3 / parameter.shape[-1] ** 0.5
            if parameter.ndim > 1:
                parameter.copy_(noise * scale)
            else:
                parameter.copy_(1 + 0.2 * noise if "norm" in name else 0.2 * noise)
    return model


@contextmanager
def in_effect(model: nn.Module, replacement: Replacement, blocks: Iterable[Block] = ()) -> Iterator[None]:
    """Put a replacement into a model for as long as the context lasts."""
    undo = replace(model, modules(model, replacement, blocks))
    try:
        yield
    finally:
        undo()


def tokens(batch: int = 2, length: int = 24, *, seed: int = 1) -> Tensor:
    """Random token ids (batch, length), none of them the padding's 0."""
    return torch.randint(1, VOCABULARY, (batch, length), generator=seeded(seed))


def logits(model: Any, ids: Tensor) -> Tensor:
    """The predictions of a model for every token, without gradients."""
    with torch.no_grad():
        return model(ids).logits
