"""What a model now is, beside what its configuration says, and the way back from that to a model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polyad.layers import Conv, Embedding, Factors, Linear
from polyad.models.attention import ReducedAttention

LAYERS = {"Linear": Linear, "Embedding": Embedding, "Conv": Conv}
FOREIGN = "polyad"
"""The model type in config.json of a folder that transformers alone cannot load: it refuses it by name, where
it would otherwise fill the layers that it does not find with random numbers."""


def unshared(model: nn.Module, dtype: torch.dtype | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict with every shared tensor once, parameters in ``dtype``, and the ties: alias -> owner."""
    tensors: dict[str, Tensor] = {}
    owners: dict[int, str] = {}
    ties: dict[str, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in owners:
            ties[name] = owners[id(tensor)]
        else:
            owners[id(tensor)] = name
            cast = dtype if isinstance(tensor, nn.Parameter) and tensor.is_floating_point() else None
            tensors[name] = tensor.detach().to(cast or tensor.dtype).contiguous()
    return tensors, ties


def unsaved_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that the state dict leaves out, such as rotary frequencies; each under its own name."""
    saved = model.state_dict(keep_vars=True).keys()
    return {name: b.detach().clone() for name, b in model.named_buffers(remove_duplicate=False) if name not in saved}


def describe(model: nn.Module, dtype: torch.dtype | None = None) -> tuple[dict[str, Any], bool, dict[str, Any]]:
    """The config to write, whether transformers alone can load the model by it, and what each module now is."""
    import transformers

    if not hasattr(transformers, type(model).__name__) or not hasattr(model, "config"):
        raise TypeError(f"a {type(model).__name__} is no model of transformers; keep its state_dict yourself")
    config = copy.deepcopy(getattr(model, "config"))  # noqa: B009
    config.architectures = [type(model).__name__]
    if dtype is not None:
        config.dtype = dtype
    modules = differences(model, skeleton(config))
    if modules and _ordinary(modules):
        widened = _with_widths(model, config)
        if widened is not None:
            config, modules = widened, {}
    for path, spec in modules.items() if dtype is not None else ():
        if "weight" in spec:  # formats of codes state the dtype that they are read in
            spec["weight"] = model.get_submodule(path).weight().to(dtype).spec()  # pyright: ignore
    stated = config.to_dict()
    if modules:
        stated["polyad_model_type"], stated["model_type"] = stated["model_type"], FOREIGN
    return stated, not modules, modules


def differences(model: nn.Module, plain: nn.Module) -> dict[str, Any]:
    """The spec of every module that is not what the skeleton has at its path, outer ones first."""
    known = dict(plain.named_modules())
    found: dict[str, Any] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Linear | Embedding | Conv | ReducedAttention):
            found[path] = module.spec()
        elif isinstance(module, nn.Linear) and _shape(module) != _shape(known.get(path)):
            found[path] = {
                "layer": "torch.Linear", "in": module.in_features, "out": module.out_features,
                "bias": module.bias is not None,
            }  # fmt: skip
    return found


def skeleton(config: Any) -> Any:
    """The model that a configuration describes, on the meta device: shapes without numbers."""
    import transformers

    kind = getattr(transformers, config.architectures[0])
    with torch.device("meta"):
        return kind(config)


def assemble(
    config: dict[str, Any],
    stated: Mapping[str, Any],
    tensors: dict[str, Tensor],
    buffers: dict[str, Tensor],
    dtype: torch.dtype | None,
) -> Any:
    """A model from its config, its manifest and its tensors."""
    import transformers

    config = dict(config)
    if config["model_type"] == FOREIGN:
        config["model_type"] = config.pop("polyad_model_type")
    made: Any = transformers.AutoConfig.for_model(**config)
    made.architectures = config["architectures"]
    model = skeleton(made)
    for path, spec in stated["modules"].items():
        model.set_submodule(path, _module(spec, model.get_submodule(path)))
    full = {**tensors, **{alias: tensors[owner] for alias, owner in stated["ties"].items()}}
    missing, unexpected = model.load_state_dict(full, strict=False, assign=True)
    if missing or unexpected:
        raise ValueError(
            f"the weights do not fit the model: missing {missing[:3]}, unexpected {unexpected[:3]}; "
            "the folder mixes files of two models"
        )
    for alias, owner in stated["ties"].items():
        _tie(model, alias, owner, stated["ties"])
    for name, buffer in buffers.items() if buffers else _fresh_buffers(made, model).items():
        _put(model, name, buffer)
    left = [name for name, t in (*model.named_parameters(), *model.named_buffers()) if t.is_meta]
    if left:
        raise ValueError(f"no numbers were found for {', '.join(left[:3])}; the folder is not whole")
    return model if dtype is None else model.to(dtype)


def _fresh_buffers(config: Any, model: nn.Module) -> dict[str, Tensor]:
    names = [name for name, b in model.named_buffers() if b.is_meta]
    if not names:
        return {}
    found: dict[str, Tensor] = {}
    for owner in {name.rpartition(".")[0] for name in names}:
        module = model.get_submodule(owner)
        again = type(module)(getattr(module, "config", config))  # rotary tables are made from the configuration
        found |= {f"{owner}.{n}": b for n, b in again.named_buffers() if f"{owner}.{n}" in names}
    return found


def _module(spec: Mapping[str, Any], before: nn.Module) -> nn.Module:
    kind = spec["layer"]
    if kind == "torch.Linear":
        return nn.Linear(spec["in"], spec["out"], bias=spec["bias"], device="meta")
    if kind == "ReducedAttention":
        return ReducedAttention.from_spec(dict(spec), before)
    if kind not in LAYERS:
        raise ValueError(
            f"no layer is called {kind!r}; the folder was written by a newer polyad: pip install -U polyad"
        )
    return LAYERS[kind].from_spec(dict(spec))


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


def _tie(model: nn.Module, alias: str, owner: str, ties: Mapping[str, str]) -> None:
    """Make ``alias`` the very tensor that ``owner`` is; where all tensors of factors are tied, the very module."""
    place, of = alias, owner
    outermost: tuple[str, str] | None = None
    while place.rpartition(".")[2] == of.rpartition(".")[2]:
        place, of = place.rpartition(".")[0], of.rpartition(".")[0]
        if not place or not of or place == of:
            break
        factors = model.get_submodule(of)
        if isinstance(factors, Factors) and all(
            ties.get(f"{place}.{n}") == f"{of}.{n}" for n in factors.state_dict()
        ):
            outermost = place, of
    if outermost is not None:
        model.set_submodule(outermost[0], model.get_submodule(outermost[1]))
    else:
        home, _, leaf = owner.rpartition(".")
        _put(model, alias, getattr(model.get_submodule(home), leaf))


def _put(model: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    table: Any = module._parameters if isinstance(tensor, nn.Parameter) else module._buffers
    table[leaf] = tensor
