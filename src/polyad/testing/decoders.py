"""Small random decoders of transformers, on which contracts are held that need a whole model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

OTHERWISE = {"GPT2": "GPT2LMHeadModel"}
"""Families whose causal model is not called after the family and ``ForCausalLM``."""


def random_decoder(family: str, *, seed: int = 0, **config: Any) -> Any:
    """A causal model of this family and configuration, in evaluation mode and filled at random.

    >>> sizes = {"hidden_size": 16, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    >>> random_decoder("Llama", vocab_size=9, **sizes)(torch.ones(1, 3, dtype=torch.int64)).logits.shape
    torch.Size([1, 3, 9])
    """
    import transformers

    kind = getattr(transformers, OTHERWISE.get(family, f"{family}ForCausalLM"))
    model = kind(getattr(transformers, f"{family}Config")(**config)).eval()
    fill_randomly(model, seed)
    return model


def fill_randomly(model: nn.Module, seed: int = 0) -> None:
    """Give a model random numbers that leave its activations of the size that trained ones have, biases and norms
    included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_scale_noise(name, torch.randn(parameter.shape, generator=generator)))


def _scale_noise(name: str, noise: Tensor) -> Tensor:
    if noise.ndim > 1:
        return noise * (1.0 if "embed" in name else 1.3 / noise.shape[-1] ** 0.5)
    return 1 + 0.2 * noise if "norm" in name else 0.2 * noise


def random_tokens(batch: int, length: int, vocabulary: int, seed: int = 1) -> Tensor:
    """Token ids (batch, length) from 1 up, so that 0 is left for padding."""
    return torch.randint(1, vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))
