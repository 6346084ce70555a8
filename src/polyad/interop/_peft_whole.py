"""Tensors that a folder of peft's holds whole beside the adapter: of modules_to_save, and biases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polyad.adapters import Adapters
from polyad.adapters.host.sites import literal
from polyad.adapters.host.trained import PREFIX as TRAINED
from polyad.adapters.host.trained import TrainedPlace
from polyad.interop._peft_names import PREFIX, plain_path_in, unwrapped_path
from polyad.models.wrappers import plain_path


def whole_path(stated: Mapping[str, Any], path: str) -> str | None:
    """The path in the model of a tensor that is held whole, "" for one that is held twice; None for an adapter's.

    >>> whole_path({"modules_to_save": ["classifier"]}, "model.classifier.modules_to_save.weight")
    'model.classifier.weight'
    >>> whole_path({"bias": "lora_only"}, "model.query.base_layer.bias")
    'model.query.bias'
    """
    words = path.split(".")
    bias = words[-1] == "bias" and stated.get("bias", "none") != "none"
    plain = [word for word in words if word != "modules_to_save" and not (bias and word == "base_layer")]
    if bias or any(_is_saved(stated, ".".join(plain[:i])) for i in range(1, len(plain))):
        return "" if "original_module" in words else ".".join(plain)
    return None


def _is_saved(stated: Mapping[str, Any], path: str) -> bool:
    """True for a module that peft wraps for these settings: by the end of its path, dots or none."""
    return any(path.endswith(name) for name in stated.get("modules_to_save") or ())


def saved_modules(model: nn.Module, names: Sequence[str]) -> list[str]:
    """The modules of a model that peft wraps for modules_to_save=names, none of them inside of another."""
    every = [unwrapped_path(path) for path, _ in model.named_modules() if path]
    wrapped = [path for path in every if any(path.endswith(name) for name in names)]
    return [path for path in wrapped if not any(path.startswith(f"{other}.") for other in wrapped)]


def trained_patterns(model: nn.Module, stated: Mapping[str, Any], whole: Iterable[str]) -> list[str]:
    """Patterns of the modules and parameters of a model that hold these tensors."""
    modules = saved_modules(model, stated.get("modules_to_save") or ()) if whole else []
    paths = {
        unwrapped_path(path): plain_path(path)
        for path, _ in (*model.named_modules(), *model.named_parameters(remove_duplicate=False))
    }
    loose = [path for path in whole if not any(path.startswith(f"{module}.") for module in modules)]
    missing = [path for path in loose if path not in paths]
    if missing:
        raise ValueError(
            f"the folder holds numbers of {missing[0]}, which this model does not have; load it onto the model "
            "that it is of"
        )
    return [literal(paths[path]) for path in (*modules, *loose)]


def fill_places(places: Iterable[TrainedPlace], whole: Mapping[str, Tensor]) -> None:
    """Give the places their numbers; refuse a folder without numbers for one, or with others."""
    by_path = {unwrapped_path(place.path): place for place in places}
    for path in (*by_path.keys(), *whole):
        if path not in whole or path not in by_path:
            lacks = "this model has no place for" if path in whole else "the folder holds no numbers of"
            raise ValueError(f"modules_to_save: {lacks} {path}; load the folder onto the model it is of")
    for path, place in by_path.items():
        if place.tensor.shape != whole[path].shape:
            raise ValueError(
                f"{path} has shape {tuple(place.tensor.shape)} here and {tuple(whole[path].shape)} in the folder; "
                "make the model with as many outputs (num_labels=) as the folder's"
            )
        with torch.no_grad():
            place.tensor.copy_(whole[path])


def whole_tensors(adapters: Adapters, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors that an adapter trains whole under peft's names, and the settings with which peft reads them."""
    on = {plain_path_in(adapters.model, path) for path, layer in adapters.layers().items() if name in layer.specs}
    chosen = next(layer.specs[name].trained for layer in adapters.layers().values() if name in layer.specs)
    numbers = {key.removeprefix(TRAINED): tensor for key, tensor in adapters.trained(name).items()}
    biases = [path for path in chosen if path in numbers]
    others = [path for path in biases if path.rpartition(".")[2] != "bias"]
    if others:
        raise ValueError(
            f"{name!r} trains {others[0]} alone, and peft trains whole modules or biases; attach with "
            f"trained=({others[0].rpartition('.')[0]!r},), or merge the adapter and save the model"
        )
    modules = saved_modules(adapters.model, [path for path in chosen if path not in numbers])
    adapted = [path for path in on if any(f"{path}.".startswith(f"{module}.") for module in modules)]
    if adapted:
        raise ValueError(
            f"peft finds modules_to_save by the end of their names, and {adapted[0]} with an adapter of {name!r} "
            f"ends like one of {', '.join(modules)}; leave that layer out, or merge the adapter and save the model"
        )
    tensors: dict[str, Tensor] = {}
    for module in modules:
        for key, tensor in adapters.model.get_submodule(module).state_dict().items():
            trained = numbers.get(f"{module}.{key}")
            tensors[f"{PREFIX}{module}.{key}"] = tensor if trained is None else trained
    for path in biases:
        owner = path.rpartition(".")[0]
        tensors[f"{PREFIX}{owner}{'.base_layer' if owner in on else ''}.bias"] = numbers[path]
    alone = all(path.rpartition(".")[0] in on for path in biases)
    bias = "none" if not biases else "lora_only" if alone else "all"
    tensors = {key: tensor.detach().cpu() for key, tensor in tensors.items()}
    return tensors, {"modules_to_save": modules or None, "bias": bias}
