"""The manifest of a saved model: ties and modules that its configuration does not describe."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polyad.layers import Conv, Embedding, Linear
from polyad.models.described import KINDS

FOREIGN = "polyad"
"""The model type in config.json of a folder that transformers alone cannot load: it refuses it by name, where
it would otherwise fill the layers that it does not find with random numbers."""


def split_ties(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict with every shared tensor once, and the ties: alias -> owner."""
    tensors: dict[str, Tensor] = {}
    owners: dict[int, str] = {}
    ties: dict[str, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in owners:
            ties[name] = owners[id(tensor)]
        else:
            owners[id(tensor)] = name
            tensors[name] = tensor
    return tensors, ties


def unsaved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that the state dict leaves out, such as rotary frequencies; each under its own name."""
    saved = model.state_dict(keep_vars=True).keys()
    return {name: b.detach().clone() for name, b in model.named_buffers(remove_duplicate=False) if name not in saved}


def describe(
    model: nn.Module, dtype: torch.dtype | None = None
) -> tuple[dict[str, Any] | None, bool, dict[str, Any]]:
    """The config to write, whether transformers alone can load the model by it, and what each module now is.

    A module that is no model of transformers has no config, and every linear layer of it is described: nothing here
    can tell which of them have the widths that they had.
    """
    import transformers

    if not hasattr(transformers, type(model).__name__) or not hasattr(model, "config"):
        return None, False, _cast(model, differences(model, None), dtype)
    config = copy.deepcopy(getattr(model, "config"))  # noqa: B009
    config.architectures = [type(model).__name__]
    stated = getattr(config, "quantization_config", None)
    if getattr(stated, "quant_method", None) == FOREIGN:  # of save_pretrained; the manifest says it here
        del config.quantization_config
    if dtype is not None:
        config.dtype = dtype
    modules = differences(model, skeleton(config))
    if modules and _ordinary(modules):
        widened = _with_widths(model, config)
        if widened is not None:
            config, modules = widened, {}
    stated, modules = config.to_dict(), _cast(model, modules, dtype)
    if modules:
        stated["polyad_model_type"], stated["model_type"] = stated["model_type"], FOREIGN
    return stated, not modules, modules


def _cast(model: nn.Module, modules: dict[str, Any], dtype: torch.dtype | None) -> dict[str, Any]:
    """The specs with the dtype that formats of codes will be read in."""
    for path, spec in modules.items() if dtype is not None else ():
        if "weight" in spec:
            spec["weight"] = model.get_submodule(path).weight().to(dtype).spec()  # pyright: ignore
    return modules


def differences(model: nn.Module, plain: nn.Module | None) -> dict[str, Any]:
    """The spec of every module that is not what the skeleton has at its path, outer ones first.

    Without a skeleton all of torch's own linear layers count as different.
    """
    originals = dict(plain.named_modules()) if plain is not None else {}
    specs: dict[str, Any] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        layer: Any = module
        if isinstance(module, (Linear, Embedding, Conv, *KINDS.values())):
            specs[path] = layer.spec()
        elif _plain_linear(module, plain is None) and _shape(module) != _shape(originals.get(path)):
            specs[path] = {
                "layer": "torch.Linear", "in": module.in_features, "out": module.out_features,
                "bias": module.bias is not None,
            }  # fmt: skip
    return specs


def _plain_linear(module: nn.Module, exactly: bool) -> bool:
    """``exactly`` leaves out subclasses, whose forward pass a linear layer of torch would not have."""
    return type(module) is nn.Linear if exactly else isinstance(module, nn.Linear)


def skeleton(config: Any) -> Any:
    """The model that a configuration describes, on the meta device: shapes without numbers."""
    import transformers

    kind = getattr(transformers, config.architectures[0])
    with torch.device("meta"):
        return kind(config)


def _ordinary(modules: Mapping[str, Any]) -> bool:
    return all(spec["layer"] == "torch.Linear" for spec in modules.values())


def _with_widths(model: nn.Module, config: Any) -> Any:
    """The configuration that states the model's MLP width, if one number does and nothing else differs."""
    widths = {m.in_features for p, m in model.named_modules() if p.endswith("down_proj") and isinstance(m, nn.Linear)}
    if len(widths) != 1 or not hasattr(config, "intermediate_size"):
        return None
    changed = copy.deepcopy(config)
    changed.intermediate_size = widths.pop()
    return None if differences(model, skeleton(changed)) else changed


def _shape(module: Any) -> tuple[int, int, bool] | None:
    return (
        (module.in_features, module.out_features, module.bias is not None) if isinstance(module, nn.Linear) else None
    )
