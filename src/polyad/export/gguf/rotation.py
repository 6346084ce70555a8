"""The rotary frequencies of a model as keys and tensors of a GGUF file."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from polyad.export.gguf.architectures import Architecture, head_width


def rotary_keys(model: Any, architecture: Architecture) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Keys without the architecture's prefix, and tensors by their names in a file, for the frequencies of a model.

    Those are the model's own: a scaling that no key states is written as the numbers that divide the frequencies.
    """
    config = model.config
    stated = dict(getattr(config, "rope_parameters", None) or {})
    keys: dict[str, Any] = {}
    if any(isinstance(value, dict) for value in stated.values()):
        local, stated = dict(stated.get("sliding_attention", {})), dict(stated["full_attention"])
        keys["rope.freq_base_swa"] = float(local["rope_theta"])
        if local.get("rope_type", "default") != "default":
            raise _refusal(architecture, local)
    base = float(stated.get("rope_theta", 10_000.0))
    share = stated.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None)) or 1.0
    count = int(head_width(config) * share)
    keys.update({"rope.dimension_count": count, "rope.freq_base": base})
    kind = stated.get("rope_type", "default")
    if kind == "default":
        return keys, {}
    factor = float(stated.get("factor") or 1.0)
    original = int(stated.get("original_max_position_embeddings") or config.max_position_embeddings)
    if kind == "linear":
        return {**keys, "rope.scaling.type": "linear", "rope.scaling.factor": factor}, {}
    if kind == "yarn":
        return {**keys, **_yarn(stated, factor, original)}, {}
    if kind == "llama3" and architecture.factors:
        return keys, {"rope_freqs.weight": _divisors(model, base, count)}
    if kind == "longrope" and architecture.name == "phi3":
        whole = config.max_position_embeddings / original
        attention = stated.get("attention_factor") or (
            math.sqrt(1 + math.log(whole) / math.log(original)) if whole > 1 else 1.0
        )
        keys |= {"rope.scaling.original_context_length": original, "rope.scaling.attn_factor": float(attention)}
        names = {"rope_factors_short.weight": "short_factor", "rope_factors_long.weight": "long_factor"}
        return keys, {name: torch.tensor(stated[place], dtype=torch.float32) for name, place in names.items()}
    raise _refusal(architecture, stated)


def _refusal(architecture: Architecture, stated: dict[str, Any]) -> ValueError:
    return ValueError(
        f"rotary scaling of the type {stated.get('rope_type')!r} cannot be written for the architecture "
        f"{architecture.name}: no key of GGUF says it; use --format onnx or transformers instead"
    )


def _yarn(stated: dict[str, Any], factor: float, original: int) -> dict[str, Any]:
    """Keys of YaRN. The engine multiplies what it is told by 1 + log(factor) / 10 itself."""
    default = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
    attention = stated.get("attention_factor")
    if attention is None and stated.get("mscale") and stated.get("mscale_all_dim"):
        one, all_dim = (0.1 * stated[name] * math.log(factor) + 1.0 for name in ("mscale", "mscale_all_dim"))
        attention = one / all_dim
    return {
        "rope.scaling.type": "yarn", "rope.scaling.factor": factor, "rope.scaling.original_context_length": original,
        "rope.scaling.attn_factor": float(default if attention is None else attention) / default,
        "rope.scaling.yarn_beta_fast": float(stated.get("beta_fast") or 32.0),
        "rope.scaling.yarn_beta_slow": float(stated.get("beta_slow") or 1.0),
    }  # fmt: skip


def _divisors(model: Any, base: float, count: int) -> Tensor:
    """The numbers by which a model's frequencies are divided, one for each pair."""
    frequencies = next(b for name, b in model.named_buffers() if name.endswith("rotary_emb.inv_freq"))
    plain = base ** -(torch.arange(0, count, 2, dtype=torch.float64) / count)
    return (plain / frequencies.detach().cpu().double()).float()
