"""The architectures of GGUF that decoders of transformers are written as, and what llama.cpp computes for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SILU, GELU = ("silu", "swish"), ("gelu_pytorch_tanh", "gelu_tanh", "gelu_new")


@dataclass(frozen=True)
class Architecture:
    """One architecture: its name in files, and what its engine does that a configuration may say otherwise.

    ``pairs``: queries and keys have the two numbers of a rotation side by side. ``wider`` is one that computes the
    same and has widths by layer and more biases, if there is one. ``factors``: the engine reads a tensor of rotary
    factors. ``window``: in all but every so-manieth layer attention is to a window, 0 where the engine has none.
    ``biases`` are those that it reads, besides those of queries, keys and values.
    """

    name: str
    activations: tuple[str, ...] = SILU
    pairs: bool = False
    wider: Architecture | None = None
    factors: bool = False
    window: int = 0
    biases: tuple[str, ...] = ()
    epsilon: str = "attention.layer_norm_rms_epsilon"


QKV = ("attn_q", "attn_k", "attn_v", "attn_qkv")
MATRICES = ("attn_output", "ffn_gate", "ffn_up", "ffn_down")
NORMS = ("attn_norm", "ffn_norm", "output_norm")
DECI = Architecture("deci", pairs=True, factors=True, biases=MATRICES)
LLAMA = Architecture("llama", pairs=True, wider=DECI, factors=True, biases=MATRICES)

ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": Architecture("qwen2", wider=DECI),
    "qwen3": Architecture("qwen3"),
    "gemma": Architecture("gemma", GELU),
    "gemma2": Architecture("gemma2", GELU, window=2),
    "gemma3_text": Architecture("gemma3", GELU, window=6),
    "phi3": Architecture("phi3"),
    "granite": Architecture("granite", pairs=True, biases=MATRICES),
    "olmo2": Architecture("olmo2"),
    "smollm3": Architecture("smollm3", pairs=True, factors=True),
    "starcoder2": Architecture(
        "starcoder2", GELU, biases=(*MATRICES, *NORMS), epsilon="attention.layer_norm_epsilon"
    ),
    "stablelm": Architecture("stablelm", biases=NORMS, epsilon="attention.layer_norm_epsilon"),
}
"""By transformers' model type."""

WIDEST_GEMMAS = (46, 62)
"""Layers of the Gemmas of 27 billion numbers, for which the engine scales scores by another width."""


def architecture_of(model: Any) -> Architecture:
    """The architecture of a decoder, or a sentence on what its engine cannot do."""
    config = getattr(model, "config", None)
    kind = str(getattr(config, "model_type", None))
    if kind not in ARCHITECTURES or not type(model).__name__.endswith("ForCausalLM"):
        raise ValueError(
            f"{type(model).__name__} (model type {kind!r}) cannot be written as GGUF; decoders that can are those of "
            f"the types {', '.join(sorted(ARCHITECTURES))}"
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
