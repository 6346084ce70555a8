"""A small decoder on which conversions of attention are tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, nn

from polyad.models import replace


def draw_decoder(generator: Generator) -> nn.Module:
    """A decoder of one layer with four heads of queries and two of keys."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: Any = {"hidden_size": 32, "intermediate_size": 8, "num_attention_heads": 4, "vocab_size": 9}
    model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, num_key_value_heads=2, **sizes)).eval()
    model.load_state_dict({n: torch.randn(p.shape, generator=generator) / 4 for n, p in model.state_dict().items()})
    return model


@torch.no_grad()
def logits_change(modules: Mapping[str, nn.Module], model: Any) -> float:
    """The relative change of the logits with these modules in the model."""
    before, undo = model(torch.arange(9)[None]).logits, replace(model, modules)
    change = model(torch.arange(9)[None]).logits - before
    undo()
    return float(change.norm() / before.norm())
