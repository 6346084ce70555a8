"""Layers of a model that can be replaced by ones that hold a format, and those that are left whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from polyad.layers import Linear
from polyad.models.layer_matrices import CONVOLUTIONS, linear_types, matrix_shape
from polyad.models.spared_layers import fused_experts, head_reasons, is_router
from polyad.models.surgery import Places, Which, matches, select
from polyad.models.uncalled_layers import uncalled_layers

FUSED = "experts in one tensor; a pattern such as '*experts*' may take them"


@dataclass(frozen=True)
class Selection:
    """The layers to compress, by path, and the reason of each layer that is left whole."""

    chosen: Mapping[str, nn.Module]
    left: Mapping[str, str] = field(default_factory=dict)


def compressible(model: nn.Module, which: Which | None = None, *, grouped: bool = False) -> dict[str, nn.Module]:
    """The linear layers and convolutions to compress, by path; those of ``select_layers``."""
    return dict(select_layers(model, which, grouped=grouped).chosen)


def select_layers(
    model: nn.Module, which: Which | None = None, *, grouped: bool = False, reads_inputs: bool = False
) -> Selection:
    """The layers to compress, and why the others are left.

    Without ``which``: of a model of transformers every linear layer but heads, poolers and routers, of any other
    module all linear layers and convolutions but routers. "*" takes heads and embeddings too, these unless the method
    ``reads_inputs``. A layer that cannot be replaced is left out of both, and refused where another ``which``
    chose it: a convolution in groups (unless ``grouped``), one whose padding is no number, a layer whose class has a
    forward pass of its own, one that is read without being called. Of layers with one weight the first is chosen.
    """
    everything = which is None or which == "*" or which == ["*"]
    _refuse_stand_ins(model, which)
    kinds: tuple[type[nn.Module], ...] = (*linear_types(), *CONVOLUTIONS)
    if which is None:
        stock = hasattr(model, "get_output_embeddings")
        kinds = (*linear_types(), Linear) if stock else (*kinds, Linear)
    elif everything or (isinstance(which, str) and not set(which) & set("*?[")):
        kinds = (*kinds, nn.Embedding)
    layers = {p: m for p, m in model.named_modules() if isinstance(m, kinds)}
    chosen = layers if which is None else select(model, which, of=kinds)
    left = head_reasons(model) if which is None else {}
    left = {path: reason for path, reason in left.items() if path in chosen}
    left |= _routers(model, chosen, which)
    grouped = grouped and which is not None
    left |= _obstacles(model, {p: m for p, m in chosen.items() if p not in left}, everything, grouped, reads_inputs)
    left |= _shared_weights({p: m for p, m in chosen.items() if p not in left})
    remaining = {path: module for path, module in chosen.items() if path not in left}
    if not remaining:
        raise ValueError(_nothing_left(model, layers, left))
    if everything:
        left |= dict.fromkeys(fused_experts(model), FUSED)
    return Selection(remaining, left)


def _refuse_stand_ins(model: nn.Module, which: Which | None) -> None:
    """Refuse a selection with a module in it that says itself why it cannot be compressed, as adapted layers do."""
    patterns = ["*"] if which is None else [which] if isinstance(which, str) else [] if callable(which) else which
    for path, module in model.named_modules():
        reason = getattr(type(module), "reason_not_to_compress", None)
        if reason is not None and any(matches(path, pattern) for pattern in patterns):
            raise ValueError(f"{path or 'the model'} {reason.__get__(module)}")


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


def _obstacles(
    model: nn.Module, chosen: Mapping[str, nn.Module], everything: bool, grouped: bool, reads_inputs: bool
) -> dict[str, str]:
    """The reasons for which layers cannot be replaced; refused at once where they were chosen by name."""
    uncalled = uncalled_layers(model).reasons if chosen else {}
    left: dict[str, str] = {}
    places = Places(model)
    for path, module in chosen.items():
        said = obstacle(module, grouped=grouped) or uncalled.get(path) or _tie_obstacle(places, path)
        if said is None and reads_inputs and isinstance(module, nn.Embedding):
            said = "an embedding is given indices, and the method reads the inputs of its layers"
        if said is not None and not everything:
            raise ValueError(f"{path} cannot be replaced: {said}; leave it out of the selection")
        if said is not None:
            left[path] = said
    return left


def _tie_obstacle(places: Places, path: str) -> str | None:
    """The reason that a layer which shares this one's weight could not be replaced with it."""
    for other in places.sharing_weight(path):
        module = places.model.get_submodule(other)
        said = obstacle(module) or ("it is a convolution" if isinstance(module, CONVOLUTIONS) else None)
        if said is not None:
            return f"{other} shares its weight and cannot be replaced: {said}"
    return None


def _shared_weights(chosen: Mapping[str, nn.Module]) -> dict[str, str]:
    """All but one of the layers with one weight; of an embedding and a head the head stays."""
    owners: dict[int, str] = {}
    for path in sorted(chosen, key=lambda p: isinstance(chosen[p], nn.Embedding)):
        owners.setdefault(id(chosen[path].weight), path)
    return {
        path: f"the weight of {owners[id(module.weight)]}, with which it is compressed"
        for path, module in chosen.items()
        if owners[id(module.weight)] != path
    }


def _nothing_left(model: nn.Module, layers: Mapping[str, nn.Module], left: Mapping[str, str]) -> str:
    reasons = "; ".join(f"{path} is left ({reason})" for path, reason in list(left.items())[:3])
    return (
        f"{type(model).__name__} has no layer to compress: none of its {len(layers)} linear layers and "
        f"convolutions can be replaced{': ' + reasons if reasons else ''}"
    )


def obstacle(module: nn.Module, *, grouped: bool = False) -> str | None:
    """The reason that a layer cannot be replaced by one that holds a format; None where it can."""
    name = type(module).__name__
    if name == "NonDynamicallyQuantizableLinear":
        return "nn.MultiheadAttention reads its weight without calling it"
    if isinstance(module, CONVOLUTIONS):
        if module.groups > 1 and not grouped:
            return (
                f"it is a convolution in {module.groups} groups, which factors would mix (quantising it is possible)"
            )
        if isinstance(module.padding, str) or module.padding_mode != "zeros":
            return f"its padding is {module.padding!r} with {module.padding_mode}; give numbers of zeros"
    if isinstance(module, nn.Embedding):
        plain = type(module).forward is nn.Embedding.forward and module.max_norm is None
        return None if plain else f"its class {name} changes the rows that it looks up, which a new layer would not"
    if isinstance(module, (*linear_types(), *CONVOLUTIONS)) and not _as_torch_does(module):
        return f"its class {name} has a forward pass of its own, which a new layer would not have"
    return None


@torch.no_grad()
def _as_torch_does(module: Any) -> bool:
    """Compare a layer of a subclass with torch's own, on random numbers: true if they agree.

    Of sizes one apart through a whole stride: padding by one column may reach no position of every other size.
    """
    kind = cast(Any, next(k for k in (*linear_types(), *CONVOLUTIONS) if issubclass(type(module), k)))
    if type(module) is kind or type(module).forward is kind.forward:
        return True
    weight: Tensor = module.weight
    generator = torch.Generator().manual_seed(0)
    flat = kind not in CONVOLUTIONS
    for more in range(1 if flat else 1 + max(module.stride)):
        shape = [2, matrix_shape(module)[1]] if flat else [1, module.in_channels]
        if not flat:
            geometry = zip(module.kernel_size, module.dilation, module.stride, strict=True)
            shape += [(k - 1) * d + 1 + 2 * s + more for k, d, s in geometry]
        x = torch.randn(shape, generator=generator).to(weight)
        try:
            result, plain = module(x), kind.forward(module, x)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return False
        if not isinstance(result, Tensor) or result.shape != plain.shape or not torch.allclose(result, plain):
            return False
    return True
