"""Layers that are left whole unless they are named: heads, routers, poolers; and experts in one tensor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from polyad.layers import Factors
from polyad.models.layer_matrices import CONVOLUTIONS, multiplies

ROUTERS = ("router", "gate", "gating", "shared_expert_gate", "shared_experts_gate")
"""Names of layers that choose experts, or weigh them, in a module beside these."""


def is_router(model: nn.Module, path: str) -> str | None:
    """The word in a path that says that a layer chooses among experts; None of other layers.

    The names count only where experts stand beside the layer, or beside a module around it: a gate of other modules
    is a layer like any.
    """
    parts = path.split(".")
    for place in range(len(parts) - 1, max(len(parts) - 4, -1), -1):
        if parts[place] in ROUTERS:
            for above in range(place, max(place - 2, -1), -1):
                beside = model.get_submodule(".".join(parts[:above]))
                if any("expert" in name and name not in ROUTERS for name, _ in beside.named_children()):
                    return parts[place]
    return None


def head_reasons(model: nn.Module) -> dict[str, str]:
    """The last layers of a model of transformers, by path, with what each is."""
    stated: Any = model
    head = stated.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    body = getattr(model, "base_model", model)
    inside = {id(module) for module in body.modules()}
    reasons: dict[str, str] = {}
    for path, module in model.named_modules():
        if not multiplies(module):
            continue
        if head is not None and module is head:
            reasons[path] = "the output head"
        elif head is None and id(module) not in inside:
            reasons[path] = "a head of the model"
        elif "pooler" in path.split("."):
            reasons[path] = "a pooler"
    return reasons


def fused_experts(model: nn.Module) -> Iterator[str]:
    """The paths of parameters that hold one matrix an expert in one tensor."""
    for path, module in model.named_modules():
        if isinstance(module, (*CONVOLUTIONS, Factors)):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 3 and "expert" in f"{path}.{type(module).__name__}".lower():
                yield f"{path}.{name}"
