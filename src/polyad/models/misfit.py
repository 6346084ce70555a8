"""Tensors that a source lacks, or that its configuration does not take: refused by name."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

HARMLESS_MISSING = re.compile(r"(^|\.)(position_ids|num_batches_tracked|masked_spec_embed)$")
"""Read in training alone, or made again by transformers itself."""

HARMLESS_UNEXPECTED = re.compile(
    r"(^|\.)(position_ids|token_type_ids|num_batches_tracked|rotary_emb\.inv_freq|relative_position_index|version)$"
    r"|\.(attn|attention)\.(masked_)?bias$"  # causal masks of old files; what a model takes is never asked here
)


def refuse_misfit(model: nn.Module, notes: Mapping[str, Any], source: Any) -> None:
    """Refuse a model whose file and configuration differ in names or shapes, by what transformers noted in loading.

    Tensors of another task's head, which another class of transformers takes from the same configuration, are left
    out as they always were: BERT's files hold the head that predicts the next sentence.
    """
    missing = sorted(name for name in set(notes["missing_keys"]) if not HARMLESS_MISSING.search(name))
    unexpected = sorted(name for name in set(notes["unexpected_keys"]) if not _is_harmless(model, name))
    mismatched = sorted(notes.get("mismatched_keys") or [], key=str)
    if unexpected:
        unexpected = without_other_heads(model, unexpected)
    parts: list[str] = []
    if missing:
        parts.append(f"it has no numbers for {_list(missing)} (transformers would draw random ones)")
    if unexpected:
        parts.append(f"its configuration has no place for {_list(unexpected)}")
    for name, stored, expected in mismatched[:3]:
        parts.append(f"{name} has the shape {tuple(stored)} and the configuration says {tuple(expected)}")
    if parts:
        raise ValueError(
            f"the model in {source} is not what its config.json describes: {'; '.join(parts)}. Get the folder again, "
            "or the configuration that belongs to these weights"
        )


def _is_harmless(model: nn.Module, name: str) -> bool:
    """True for names of tensors that follow from the configuration, which older files hold all the same."""
    buffers = {path for path, _ in model.named_buffers(remove_duplicate=False)}
    return bool(HARMLESS_UNEXPECTED.search(name)) or name in buffers or any(b.endswith(f".{name}") for b in buffers)


def without_other_heads(model: Any, names: Sequence[str]) -> list[str]:
    """Those of the names that no class of transformers takes from this model's configuration."""
    left = list(names)
    for kind in _relatives(type(model)):
        try:
            with torch.device("meta"):
                other = kind(model.config)
        except Exception:  # a class that cannot be made of this configuration takes nothing from it
            continue
        left = [name for name in left if not _takes(other, name)]
        if not left:
            break
    return left


def _relatives(kind: type) -> Iterable[Any]:
    """Classes of models in the same file of transformers that are made of the same configuration."""
    for other in vars(sys.modules[kind.__module__]).values():
        same = isinstance(other, type) and getattr(other, "config_class", None) is getattr(kind, "config_class", 0)
        if same and other is not kind and hasattr(other, "from_pretrained"):
            yield other


def _takes(other: Any, name: str) -> bool:
    """True if the other class has a tensor of this name, with or without the prefix that the base model has."""
    prefix = getattr(other, "base_model_prefix", "")
    names = other.state_dict().keys()
    return any(n in names for n in (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")))


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
