"""The architectures of GGUF that decoders of transformers are written as, and what llama.cpp computes for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SILU, GELU = ("silu", "swish"), ("gelu_pytorch_tanh", "gelu_tanh", "gelu_new")


@dataclass(frozen=True)
class Architecture:
    """One architecture: its name in files, and what its engine does that a configuration may say otherwise.

    ``pairs``: queries and keys have the two numbers of a rotation side by side. ``by_layer`` names the architecture
    that is the same with widths by layer, if there is one. ``factors``: the engine reads a tensor of rotary factors.
    ``window``: a whole number where every so-manieth layer attends to all, 0 where the engine has no windows.
    ``tied``: there is no head beside the embedding. ``bias``: biases of attention are read.
    """

    name: str
    activations: tuple[str, ...] = SILU
    pairs: bool = False
    by_layer: str | None = None
    factors: bool = False
    window: int = 0
    tied: bool = False
    fixed_scaling: bool = True
    epsilon: str = "attention.layer_norm_rms_epsilon"


LLAMA = Architecture("llama", pairs=True, by_layer="deci", factors=True)

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "gemma": Architecture("gemma", GELU, tied=True),
    "gemma2": Architecture("gemma2", GELU, window=2, tied=True, fixed_scaling=False),
    "gemma3_text": Architecture("gemma3", GELU, window=6, fixed_scaling=False),
    "phi3": Architecture("phi3"),
    "granite": Architecture("granite", pairs=True, fixed_scaling=False),
    "olmo2": Architecture("olmo2"),
    "smollm3": Architecture("smollm3", pairs=True, factors=True),
    "starcoder2": Architecture("starcoder2", GELU, epsilon="attention.layer_norm_epsilon"),
    "stablelm": Architecture("stablelm", epsilon="attention.layer_norm_epsilon"),
}
"""By transformers' model type."""

WIDEST_GEMMAS = (46, 62)
"""Layers of the Gemmas of 27 billion numbers, for which the engine scales scores by another width."""


def architecture_of(model: Any) -> Architecture:
    """The architecture of a decoder, or a sentence on what its engine cannot do."""
    config = getattr(model, "config", None)
    kind = getattr(config, "model_type", None)
    known = ", ".join(sorted(ARCHITECTURES))
    if kind not in ARCHITECTURES or not type(model).__name__.endswith("ForCausalLM"):
        raise ValueError(
            f"{type(model).__name__} (model type {kind!r}) cannot be written as GGUF; decoders that can are those of "
            f"the types {known}"
        )
    refuse_other_functions(config, ARCHITECTURES[kind])
    return ARCHITECTURES[kind]


def refuse_other_functions(config: Any, architecture: Architecture) -> None:
    """Refuse a configuration that asks for what the engine does otherwise and no key of a file can say."""

    def refuse(name: str, value: Any, does: str) -> None:
        raise ValueError(
            f"{config.model_type} with {name}={value!r} cannot be written as GGUF: llama.cpp {does} for "
            f"{architecture.name}; use --format onnx or transformers instead"
        )

    activation = getattr(config, "hidden_activation", None) or getattr(
        config, "hidden_act", architecture.activations[0]
    )
    if activation not in architecture.activations:
        refuse("hidden_act", activation, f"computes {architecture.activations[0]}")
    layers, width = config.num_hidden_layers, head_width(config)
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * layers
    if architecture.window:
        fits = [
            "full_attention" if (i + 1) % architecture.window == 0 else "sliding_attention" for i in range(layers)
        ]
        if kinds != fits:
            refuse("layer_types", kinds, f"has a window in all but every {architecture.window}th layer")
        scalar = config.hidden_size // config.num_attention_heads if layers in WIDEST_GEMMAS else width
        if config.query_pre_attn_scalar != scalar:
            refuse("query_pre_attn_scalar", config.query_pre_attn_scalar, f"scales by {scalar}")
    if architecture.name == "gemma3" and getattr(config, "attn_logit_softcapping", None):
        refuse("attn_logit_softcapping", config.attn_logit_softcapping, "caps no scores")
    if architecture.name == "gemma3" and getattr(config, "use_bidirectional_attention", False):
        refuse("use_bidirectional_attention", True, "attends to the past")
    if architecture.name == "smollm3":
        rotary = [int((i + 1) % 4 != 0) for i in range(layers)]
        if list(config.no_rope_layers) != rotary:
            refuse("no_rope_layers", config.no_rope_layers, "rotates in all but every 4th layer")


def head_width(config: Any) -> int:
    """The numbers of a head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
