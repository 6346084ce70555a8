"""The files of a folder of peft's: settings, and tensors by layer; what is not read is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from polyad._stated import read_stated
from polyad.interop._peft_names import path_of, unwrapped_path
from polyad.interop._peft_whole import whole_path

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

ALTERING = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts with which peft also changes the weights that it adapts."""

UNREAD = (
    "alora_invocation_tokens", "arrow_config", "ensure_weight_tying", "kasa_config", "layer_replication", "lora_bias",
    "monteclora_config", "use_bdlora", "use_qalora", "velora_config",
)  # fmt: skip
"""Settings of peft that change what an adapter computes and that nothing here does."""

NUMBERS = (
    "r", "lora_alpha", "alpha", "lora_dropout", "vera_dropout", "projection_prng_key", "eps",
    "num_cayley_neumann_terms",
)  # fmt: skip
PATTERNS = ("rank_pattern", "alpha_pattern")
NAMES = ("modules_to_save", "target_modules", "exclude_modules", "feedforward_modules", "layers_pattern")
"""Settings that are numbers, numbers by pattern, and names of layers: a list, or one expression."""

INSTEAD = "; put it into the model with peft's merge_and_unload, and load that model"
"""What to do with an adapter that is not read."""

ROWS = ["token_adapter", "trainable_tokens_delta"]
"""The end of the names that peft gives rows of embeddings that were trained."""

PARTS = ("lora_", "hada_", "lokr_", "vera_", "ia3_", "oft_")
"""The beginnings of the names that peft gives the tensors of a layer's adapter."""


@dataclass
class Tensors:
    """The tensors of a folder: of layers by path and name, those that layers share, and weights of the model."""

    layers: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    shared: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    whole: dict[str, Tensor] = field(default_factory=dict)
    """Of modules that were trained whole, and biases, by their paths without wrappers."""
    rows: dict[str, Tensor] = field(default_factory=dict)
    """Of single rows of embeddings, by the embedding's path."""


def read_files(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings and the tensors in a folder of peft's, by their names in it."""
    try:
        stated = read_stated(folder / CONFIG, dict[str, Any], "save it again with peft")
    except ValueError as error:
        raise ValueError(f"{folder} holds no adapter of peft's: {error}") from None
    _refuse_other_types(stated, folder)
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").exists()
        what = "a pickle is not read: save it with safe_serialization=True" if pickled else "copy the folder again"
        raise ValueError(f"{folder / WEIGHTS} is missing; {what}")
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, UnicodeError, RuntimeError) as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read ({error}); copy the folder again") from None
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(
                f"{key} in {folder} holds numbers that are NaN or infinite; give an adapter without them"
            )
    return stated, tensors


def _refuse_other_types(stated: Mapping[str, Any], folder: Path) -> None:
    """Refuse settings that are not of the kind that peft writes."""
    for key, value in stated.items():
        fits = True
        if value is None:
            continue
        if key in NUMBERS:
            fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
        elif key in PATTERNS:
            fits = isinstance(value, dict) and all(isinstance(v, int | float) for v in value.values())
        elif key in NAMES:
            fits = isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))
        elif key == "layers_to_transform":
            fits = isinstance(value, int) or (isinstance(value, list) and all(isinstance(v, int) for v in value))
        if not fits:
            raise ValueError(
                f"{folder / CONFIG} has {key}={value!r}, which peft does not write; copy the folder again"
            )


def refuse_settings(stated: Mapping[str, Any]) -> None:
    """Refuse settings with which peft computes something that is not computed here."""
    used = [key for key in UNREAD if stated.get(key)]
    if used:
        raise ValueError(f"the adapter was made with {used[0]}={stated[used[0]]!r}, which is not read{INSTEAD}")
    bias = stated.get("bias", "none")
    if bias not in ("none", "all") and not str(bias).endswith("_only"):
        raise ValueError(f"the adapter was trained with bias={bias!r}, which peft does not write{INSTEAD}")
    start = str(stated.get("init_lora_weights", True)).lower()
    if start.startswith(ALTERING):
        raise ValueError(
            f"init_lora_weights={start!r} also changes the weights adapted; save it as an ordinary LoRA with peft's "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...) first"
        )


def sort_tensors(tensors: Mapping[str, Tensor], stated: Mapping[str, Any]) -> Tensors:
    """The tensors of a folder by what they belong to; a name that belongs to nothing is refused."""
    sorted_tensors = Tensors()
    for key, tensor in tensors.items():
        words = path_of(key).removesuffix(".weight").split(".")
        if words[-2:] == ROWS:
            sorted_tensors.rows[".".join(words[:-2])] = tensor
            continue
        whole = None if any(word.startswith(PARTS) for word in words) else whole_path(stated, path_of(key))
        if whole is not None:
            sorted_tensors.whole |= {unwrapped_path(whole): tensor} if whole else {}
            continue
        if "vera_A" in words or "vera_B" in words:
            sorted_tensors.shared[next(word for word in words if word.startswith("vera_"))] = tensor
            continue
        if key.endswith(".base_layer.weight"):  # peft writes the embeddings out where one of them is adapted
            sorted_tensors.weights[".".join(words[:-1])] = tensor
            continue
        if len(words) < 2 or not words[-1].startswith(PARTS) or any(w.startswith(PARTS) for w in words[:-1]):
            raise ValueError(f"the tensor {key} is no part of an adapter that can be read{INSTEAD}")
        sorted_tensors.layers.setdefault(".".join(words[:-1]), {})[words[-1]] = tensor
    return sorted_tensors
