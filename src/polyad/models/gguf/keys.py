"""The keys of a GGUF file that transformers' reader leaves out, put into the configuration or refused by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from polyad.models.gguf.header import Header

STATED = {
    "vocab_size": "vocab_size",
    "rope.scaling.original_context_length": "original_max_position_embeddings",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}
"""Keys and the attributes of configurations that say the same."""

ONLY_WHERE_TAKEN = ("attention.key_length", "vocab_size", "rope.scaling.original_context_length")
"""Of these, those that say nothing of a function where a configuration has no such attribute."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.scale": (0, 1), "residual_scale": (0, 1), "embedding_scale": (0, 1), "logit_scale": (0, 1),
    "attention.clamp_kqv": (0,), "attention.max_alibi_bias": (0,), "rope.scaling.alpha": (0, 1),
    "rope.scaling.yarn_ext_factor": (-1, 1), "rope.scaling.yarn_log_multiplier": (0,),
    "rope.scaling.yarn_attn_factor": (1,), "expert_count": (0,), "attention.causal": (True,),
}  # fmt: skip
"""Keys that change the function and that no configuration takes here, with the values that change nothing."""

TAKEN = {
    "bloom": ("attention.max_alibi_bias",), "gpt-oss": ("expert_count",), "gpt_oss": ("expert_count",),
    "qwen2moe": ("expert_count",), "qwen3moe": ("expert_count",), "minimax-m2": ("expert_count",),
}  # fmt: skip
"""Of these, what transformers' classes for an architecture do by themselves."""

WIDEST_GEMMAS = (46, 62)
"""Layers of the Gemmas of 27 billion numbers, which scale their scores by another width than that of a head."""

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""Of every Llama 3 model; its files hold the frequencies that follow and not these numbers."""


def take_keys(config: Any, header: Header) -> None:
    """Put what the file says of its model and transformers' reader leaves out into the configuration."""
    for key, attribute in STATED.items():
        value = header.keys.get(key)
        if value is None or isinstance(value, list):
            continue
        if key in ONLY_WHERE_TAKEN and not hasattr(config, attribute):
            continue
        if hasattr(config, attribute):
            if getattr(config, attribute) != value and not (attribute == "sliding_window" and not value):
                setattr(config, attribute, value)
        elif value and value < header.keys.get("context_length", math.inf):
            _refuse(header, key, value)
    for key, neutral in NEUTRAL.items():
        value = header.keys.get(key)
        if value is not None and value not in neutral and key not in TAKEN.get(header.architecture, ()):
            _refuse(header, key, value)
    for attribute, part in (("attention_bias", ".attn_q.bias"), ("mlp_bias", ".ffn_up.bias")):
        if getattr(config, attribute, None) is False and any(name.endswith(part) for name in header.tensors):
            setattr(config, attribute, True)
    if hasattr(config, "query_pre_attn_scalar"):  # no key has it: llama.cpp goes by the number of layers
        wide = header.keys.get("block_count") in WIDEST_GEMMAS
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads if wide else config.head_dim
    take_rotation(config, header)
    take_tokens(config, header)


def _refuse(header: Header, key: str, value: Any) -> None:
    raise ValueError(
        f"{header.path} states {header.architecture}.{key} = {value}, which transformers' model for this "
        "architecture does not take; give a folder of safetensors instead"
    )


def take_rotation(config: Any, header: Header) -> None:
    """Give a configuration the file's rotary base, width and scaling."""
    stated = {key: value for key, value in header.keys.items() if key.startswith("rope.")}
    parameters = getattr(config, "rope_parameters", None)
    scaling = rotary_scaling(config, header)
    if not isinstance(parameters, dict):
        if scaling:
            raise ValueError(
                f"{header.path} scales rotary frequencies ({scaling['rope_type']}), and transformers' model for "
                f"{header.architecture} has none; give a folder of safetensors instead"
            )
        return
    nested = parameters and all(isinstance(value, dict) for value in parameters.values())
    place = parameters.get("full_attention", {}) if nested else parameters
    if "rope.freq_base" in stated:
        place["rope_theta"] = float(stated["rope.freq_base"])
    if nested and "rope.freq_base_swa" in stated and "sliding_attention" in parameters:
        parameters["sliding_attention"]["rope_theta"] = float(stated["rope.freq_base_swa"])
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    count = stated.get("rope.dimension_count")
    if count and not nested and count != width * place.get("partial_rotary_factor", 1.0):
        place["partial_rotary_factor"] = count / width
    if scaling:
        place.update(scaling)


def rotary_scaling(config: Any, header: Header) -> dict[str, Any]:
    """The scaling in transformers' words; empty where the file has none."""
    keys, factors = header.keys, {name: t for name, t in header.rotary.items() if not bool((t == 1).all())}
    kind, factor = keys.get("rope.scaling.type"), keys.get("rope.scaling.factor", keys.get("rope.scale_linear"))
    original = keys.get("rope.scaling.original_context_length")
    if factors:
        return factor_scaling(config, header, factors)
    if kind == "none" or (kind in (None, "linear") and factor in (None, 0, 1)):
        return {}
    if kind in (None, "linear"):
        return {"rope_type": "linear", "factor": float(factor)}
    if kind != "yarn" or not factor:
        raise ValueError(
            f"{header.path} scales rotary frequencies by rope.scaling.type = {kind!r} with the factor {factor}, "
            "which is not understood; give a folder of safetensors instead"
        )
    scaling = {"rope_type": "yarn", "factor": float(factor)}
    scaling["original_max_position_embeddings"] = int(original or config.max_position_embeddings)
    if keys.get("rope.scaling.attn_factor") is not None:
        scaling["attention_factor"] = keys["rope.scaling.attn_factor"] * (1 + 0.1 * math.log(factor))
    for end in ("beta_fast", "beta_slow"):
        if f"rope.scaling.yarn_{end}" in keys:
            scaling[end] = float(keys[f"rope.scaling.yarn_{end}"])
    return scaling


def factor_scaling(config: Any, header: Header, factors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Frequencies that tensors of the file divide: as Llama 3 does, or each by its number."""
    keys, most = header.keys, config.max_position_embeddings
    one = factors.get("rope_freqs.weight")
    if one is not None:
        three = {"rope_type": "llama3", "factor": float(one.max()), **LLAMA3}
        if np.allclose(one, _llama3_factors(three, len(one), keys.get("rope.freq_base", 10_000.0)), rtol=1e-5):
            return three
    short = factors.get("rope_factors_short.weight", one)
    long = factors.get("rope_factors_long.weight", short)
    short = long if short is None else short
    assert short is not None
    assert long is not None
    return {
        "rope_type": "longrope", "short_factor": short.tolist(), "long_factor": long.tolist(), "factor": 1.0,
        "attention_factor": float(keys.get("rope.scaling.attn_factor", 1.0)),
        "original_max_position_embeddings": int(keys.get("rope.scaling.original_context_length", most)),
    }  # fmt: skip


def _llama3_factors(stated: dict[str, Any], count: int, base: float) -> np.ndarray:
    """The numbers by which Llama 3 divides its frequencies, lowest pair first."""
    waves = 2 * math.pi * base ** (np.arange(count) / count)
    low, high, factor = stated["low_freq_factor"], stated["high_freq_factor"], stated["factor"]
    smooth = np.clip((stated["original_max_position_embeddings"] / waves - low) / (high - low), 0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


def take_tokens(config: Any, header: Header) -> None:
    """Give a configuration the ids with which texts begin, end and are filled up."""
    ids = {
        name: header.keys.get(f"tokenizer.ggml.{name}_token_id") for name in ("bos", "eos", "eot", "eom", "padding")
    }
    ends = list(dict.fromkeys(i for i in (ids["eos"], ids["eot"], ids["eom"]) if i is not None))
    config.bos_token_id, config.pad_token_id = ids["bos"], ids["padding"]
    config.eos_token_id = ends[0] if len(ends) == 1 else ends or None


def check_frequencies(model: nn.Module, header: Header) -> None:
    """Refuse a model whose rotary frequencies are not those of its file, where they follow from base and factors."""
    base, count = header.keys.get("rope.freq_base"), header.keys.get("rope.dimension_count")
    if not base or not count or header.keys.get("rope.scaling.type") == "yarn":
        return
    expected = float(base) ** -(torch.arange(0, count, 2, dtype=torch.float64) / count)
    factor = header.keys.get("rope.scaling.factor", header.keys.get("rope.scale_linear")) or 1
    divided = header.rotary.get("rope_freqs.weight", header.rotary.get("rope_factors_short.weight"))
    if header.keys.get("rope.scaling.type") in (None, "linear"):
        expected = expected / factor
    expected = expected if divided is None else expected / torch.from_numpy(divided).double()
    for name, buffer in model.named_buffers():
        whole = name.endswith("inv_freq") and "original" not in name and "sliding" not in name
        if whole and not (buffer.shape == expected.shape and torch.allclose(buffer.double(), expected, rtol=1e-3)):
            raise ValueError(
                f"{header.path} states rotary frequencies that transformers' model for {header.architecture} does "
                f"not have at {name}; give a folder of safetensors instead"
            )
