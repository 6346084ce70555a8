"""The keys of a GGUF file that describe a model's function."""

from __future__ import annotations

from typing import Any

from polyad.export.gguf.architectures import Architecture, head_width

FILE_TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q4_K": 14, "Q5_K": 16,
    "Q6_K": 18, "IQ4_NL": 25, "BF16": 32,
}  # fmt: skip
"""The numbers by which llama.cpp names a file after the container of most of its matrices."""


def model_keys(
    model: Any, architecture: Architecture, widths: list[int], heads: tuple[list[int], list[int]]
) -> dict[str, Any]:
    """Keys without the architecture's prefix; ``widths`` are those of the layers' MLPs, ``heads`` of two kinds."""
    config = model.config
    width = head_width(config)
    epsilon = next(
        getattr(config, n) for n in ("rms_norm_eps", "layer_norm_eps", "norm_epsilon") if hasattr(config, n)
    )
    keys: dict[str, Any] = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": _one_or_all(widths),
        "attention.head_count": _one_or_all(heads[0]),
        "attention.head_count_kv": _one_or_all(heads[1]),
        "attention.key_length": width,
        "attention.value_length": width,
        architecture.epsilon: float(epsilon),
        "vocab_size": config.vocab_size,
    }
    window = getattr(config, "sliding_window", None)
    if architecture.window and window:
        keys["attention.sliding_window"] = window
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, key, None):
            keys[key] = float(getattr(config, key))
    if architecture.name == "granite":
        keys |= {
            "attention.scale": float(config.attention_multiplier),
            "residual_scale": float(config.residual_multiplier),
            "embedding_scale": float(config.embedding_multiplier), "logit_scale": float(config.logits_scaling),
        }  # fmt: skip
    if architecture.name == "stablelm":
        keys["use_parallel_residual"] = bool(config.use_parallel_residual)
    return keys


def _one_or_all(numbers: list[int]) -> int | list[int]:
    """One number where all layers have the same, otherwise that of each."""
    return numbers[0] if len(set(numbers)) == 1 else numbers


def limit_context(keys: dict[str, Any], model: Any, architecture: Architecture) -> list[str]:
    """Shorten the context to a sliding window that the engine does not have; what was done, in sentences."""
    config = model.config
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    sliding = (
        window and (kinds is None or "sliding_attention" in kinds) and getattr(config, "use_sliding_window", True)
    )
    if architecture.window or not sliding or window >= config.max_position_embeddings:
        return []
    keys["context_length"] = window
    return [
        f"the context is {window:,} tokens: the model attends to the last {window:,}, and llama.cpp has no such "
        f"window for {architecture.name}"
    ]
