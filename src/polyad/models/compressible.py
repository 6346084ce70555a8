"""Layers of a model that can be replaced by ones that hold a format, and those that are left whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from polyad.layers import Linear
from polyad.models.layer_matrices import CONVOLUTIONS, linear_types, multiplies
from polyad.models.obstacle import fused_experts, nothing_left, obstacle_at, shared_weights
from polyad.models.surgery import Places, Which, matches, select
from polyad.models.twin import Twin
from polyad.models.uncalled_layers import uncalled_in

ROUTERS = ("router", "gate", "gating", "shared_expert_gate", "shared_experts_gate")
"""Names of layers that choose experts, or weigh them, in a module beside these."""
FUSED = "experts in one tensor; a pattern such as '*experts*' may take them"


@dataclass(frozen=True)
class LayerSelection:
    """The layers to compress, by path, and the reason of each layer that is left whole."""

    chosen: Mapping[str, nn.Module]
    left: Mapping[str, str] = field(default_factory=dict)


def compressible(model: nn.Module, which: Which | None = None, *, grouped: bool = False) -> dict[str, nn.Module]:
    """The linear layers and convolutions to compress, by path; those of ``select_layers``."""
    return dict(select_layers(model, which, Twin(model), grouped=grouped).chosen)


def select_layers(
    model: nn.Module, which: Which | None, twin: Twin, *, grouped: bool = False, reads_inputs: bool = False
) -> LayerSelection:
    """The layers to compress, and why the others are left.

    Without ``which``: of a model of transformers every linear layer but heads, poolers and routers, of any other
    module all linear layers and convolutions but routers. "*" takes heads and embeddings too, these unless the method
    ``reads_inputs``. A layer that cannot be replaced is left out of both, and refused where another ``which``
    chose it: a convolution in groups (unless ``grouped``), one whose padding is no number, a layer whose class has a
    forward pass of its own, one that is read without being called, as the model's ``twin`` shows. Of layers with one
    weight the first is chosen.
    """
    everything = which is None or which == "*" or which == ["*"]
    _refuse_stand_ins(model, which)
    kinds = _kinds(model, which, everything)
    layers = {path: module for path, module in model.named_modules() if isinstance(module, kinds)}
    chosen = layers if which is None else select(model, which, of=kinds)
    left = head_reasons(model) if which is None else {}
    left = {path: reason for path, reason in left.items() if path in chosen} | _routers(model, chosen, which)
    candidates = {path: module for path, module in chosen.items() if path not in left}
    uncalled = uncalled_in(twin).reasons if candidates else {}
    places, grouped = Places(model), grouped and which is not None
    sharing = {path: places.sharing_weight(path) for path in candidates}
    for path, module in candidates.items():
        said = obstacle_at(model, path, sharing[path], uncalled.get(path), grouped=grouped)
        if said is None and reads_inputs and isinstance(module, nn.Embedding):
            said = "an embedding is given indices, and the method reads the inputs of its layers"
        if said is not None and not everything:
            raise ValueError(f"{path} cannot be replaced: {said}; leave it out of the selection")
        if said is not None:
            left[path] = said
    left |= shared_weights({p: m for p, m in chosen.items() if p not in left})
    remaining = {path: module for path, module in chosen.items() if path not in left}
    if not remaining:
        raise ValueError(nothing_left(model, layers, left))
    if everything:
        left |= dict.fromkeys(fused_experts(model), FUSED)
    return LayerSelection(remaining, left)


def _refuse_stand_ins(model: nn.Module, which: Which | None) -> None:
    """Refuse a selection with a module in it that says itself why it cannot be compressed, as adapted layers do."""
    patterns = ["*"] if which is None else [which] if isinstance(which, str) else [] if callable(which) else which
    for path, module in model.named_modules():
        reason = getattr(type(module), "reason_not_to_compress", None)
        if reason is not None and any(matches(path, pattern) for pattern in patterns):
            raise ValueError(f"{path or 'the model'} {reason.__get__(module)}")


def _kinds(model: nn.Module, which: Which | None, everything: bool) -> tuple[type[nn.Module], ...]:
    """The kinds of layers among which ``which`` chooses."""
    kinds: tuple[type[nn.Module], ...] = (*linear_types(), *CONVOLUTIONS)
    if which is None:
        stock = hasattr(model, "get_output_embeddings")
        kinds = (*linear_types(), Linear) if stock else (*kinds, Linear)
    elif everything or (isinstance(which, str) and not set(which) & set("*?[")):
        kinds = (*kinds, nn.Embedding)
    return kinds


def _routers(model: nn.Module, chosen: Mapping[str, nn.Module], which: Which | None) -> dict[str, str]:
    """Routers that no pattern names; a predicate names what it chooses."""
    if callable(which):
        return {}
    patterns = [which] if isinstance(which, str) else list(which or ())
    words = {path: is_router(model, path) for path in chosen}
    return {
        path: "a router"
        for path, word in words.items()
        if word is not None and not any(word in pattern for pattern in patterns)
    }


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
