"""The manifest of a saved model: ties and modules that its configuration does not describe."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polyad.layers import Conv, Embedding, Linear
from polyad.models.described import KINDS
from polyad.models.pretrained import model_class
from polyad.models.shards import FLOATS

FOREIGN = "polyad"
"""The model type in config.json of a folder that transformers alone cannot load: it refuses it by name, where
it would otherwise fill the layers that it does not find with random numbers."""


def refuse_unsaveable(model: nn.Module) -> None:
    """Refuse a model with a module that a folder cannot hold, which says so itself by ``reason_not_to_save``."""
    for path, module in model.named_modules():
        reason = getattr(type(module), "reason_not_to_save", None)
        if reason is not None:
            raise ValueError(f"{path or 'the model'} {reason.__get__(module)}")


def split_ties(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict with every shared tensor once, and the ties: alias -> owner.

    Two tensors are one where they are the same numbers in memory, be they two objects.
    """
    tensors: dict[str, Tensor] = {}
    owners: dict[Any, str] = {}
    ties: dict[str, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        place = _place(tensor)
        if place in owners:
            ties[name] = owners[place]
        else:
            owners[place] = name
            tensors[name] = tensor
    return tensors, ties


def _place(tensor: Tensor) -> Any:
    """The same for tensors that are the same numbers in memory, and for no others."""
    if tensor.is_meta or tensor.numel() == 0 or tensor.layout != torch.strided:
        return id(tensor)
    address = tensor.data_ptr(), tensor.device, tensor.dtype
    return *address, tuple(tensor.shape), tensor.stride()


def weights_before_division(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model, by name, as they are before it runs for inference.

    RWKV then divides the outputs of its later blocks by powers of two, and would divide once more what is loaded.
    """
    whole = dict(tensors)
    for path, module in model.named_modules():
        rwkv: Any = module
        if not getattr(rwkv, "layers_are_rescaled", False):
            continue
        for i in range(len(rwkv.blocks)):
            factor = 2 ** (i // rwkv.config.rescale_every) if rwkv.config.rescale_every > 0 else 1
            for part in ("attention.output.weight", "feed_forward.value.weight"):
                name = f"{path}.blocks.{i}.{part}".lstrip(".")
                if factor > 1 and name in whole:
                    whole[name] = whole[name].detach() * factor
    return whole


def has_ties_of(model: nn.Module, plain: nn.Module) -> bool:
    """True if a configuration says of all tensors that the model shares that they are shared."""
    stated = split_ties(plain)[1]
    return all(stated.get(alias, alias) == stated.get(owner, owner) for alias, owner in split_ties(model)[1].items())


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

    if getattr(transformers, type(model).__name__, None) is not type(model) or not hasattr(model, "config"):
        return None, False, _cast(model, differences(model, None), dtype)
    config = copy.deepcopy(getattr(model, "config"))  # noqa: B009
    config.architectures = [type(model).__name__]
    quantized = getattr(config, "quantization_config", None)
    if getattr(quantized, "quant_method", None) == FOREIGN:  # of save_pretrained; the manifest says it here
        del config.quantization_config
    config.dtype = next(d for d in (dtype, getattr(model, "dtype", None), *FLOATS) if d in FLOATS)
    plain = skeleton(config)
    modules, ties_follow = differences(model, plain), has_ties_of(model, plain)
    if ties_follow and modules and _ordinary(modules):
        widened = _with_widths(model, config, modules)
        if widened is not None:
            config, modules = widened, {}
    stated, modules = config.to_dict(), _cast(model, modules, dtype)
    if modules or not ties_follow:
        stated["polyad_model_type"], stated["model_type"] = stated["model_type"], FOREIGN
    return stated, ties_follow and not modules, modules


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
    originals = dict(plain.named_modules(remove_duplicate=False)) if plain is not None else {}
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
    with torch.device("meta"):
        return model_class(config, "config.json")(config)


def _ordinary(modules: Mapping[str, Any]) -> bool:
    return all(spec["layer"] == "torch.Linear" for spec in modules.values())


def _with_widths(model: nn.Module, config: Any, modules: Mapping[str, Any]) -> Any:
    """The configuration that states another width of these layers, if one number of it does and all else is equal."""
    before = dict(skeleton(config).named_modules(remove_duplicate=False))
    pairs: set[tuple[int, int]] = set()
    for path, spec in modules.items():
        shape = _shape(before.get(path)) or (spec["in"], spec["out"], False)
        pairs |= {(old, new) for old, new in zip(shape, (spec["in"], spec["out"]), strict=False) if old != new}
    if len(pairs) != 1:
        return None
    old, new = pairs.pop()
    for name in [name for name, value in config.to_dict().items() if value == old and type(value) is int]:
        changed = copy.deepcopy(config)
        setattr(changed, name, new)
        with contextlib.suppress(
            ValueError, RuntimeError, TypeError, AssertionError
        ):  # widths that do not fit others
            if not differences(model, skeleton(changed)):
                return changed
    return None


def _shape(module: Any) -> tuple[int, int, bool] | None:
    return (
        (module.in_features, module.out_features, module.bias is not None) if isinstance(module, nn.Linear) else None
    )
