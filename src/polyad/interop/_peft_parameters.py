"""LoRA on the experts of a mixture, and single rows of embeddings, in folders of peft's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polyad.adapters.host.sites import Site
from polyad.interop._peft_names import unwrapped_path
from polyad.interop._peft_reading import Layers
from polyad.models.layer_matrices import is_transposed

WRAPPER = ".base_layer"
"""The end of the path of a module on which peft has put another wrapper, once for each."""


def name_experts(stated: Mapping[str, Any], every: Mapping[str, Site], layers: Layers) -> dict[str, Any]:
    """The tensors by layer, those of ``target_parameters`` under their parameters' names and by expert.

    peft wraps a module once for each parameter, in the module's order, the last one outermost. Its factors (experts *
    r, in) and (out, r * experts) become (experts, r, in) and (experts, out, r); those of a weight that lies (in, out)
    change a parameter of that shape, and become the transpose's.
    """
    targets = stated.get("target_parameters") or ()
    modules: dict[str, list[Site]] = {}
    turned = set[str]()
    for site in every.values():
        name = unwrapped_path(site.name if site.parameter is not None else f"{site.path}.weight")
        if not any(name == target or name.endswith(f".{target}") for target in targets):
            continue
        if site.kind == "experts":
            modules.setdefault(unwrapped_path(site.path), []).append(site)
        elif is_transposed(site.layer):
            turned.add(unwrapped_path(site.path))
    named, read = dict[str, Any](), set[str]()
    for path, tensors in layers.items():
        owner = path
        while owner.endswith(WRAPPER):
            owner = owner.removesuffix(WRAPPER)
        sites, depth = modules.get(unwrapped_path(owner), []), (len(path) - len(owner)) // len(WRAPPER)
        if not sites:
            named[path] = _transposed(tensors) if unwrapped_path(path) in turned else tensors
        elif depth < len(sites):
            site = sites[len(sites) - 1 - depth]
            named[site.name] = _by_expert(site, tensors)
            read.add(site.name)
    missing = [site.name for sites in modules.values() for site in sites if site.name not in read]
    if missing:
        raise ValueError(
            f"target_parameters={list(targets)!r} names {missing[0]}, of which the folder has no tensors; copy the "
            "folder again, or load it onto the model it is of"
        )
    return named


def _transposed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The factors of the transpose of a product of two matrices."""
    other = {"lora_A": "lora_B", "lora_B": "lora_A"}
    return {other.get(name, name): tensor.mT if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}


def _by_expert(site: Site, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    count = len(site.layer._parameters[site.parameter or ""])  # pyright: ignore[reportArgumentType]
    by_expert = dict(tensors)
    for name, dim in (("lora_A", 0), ("lora_B", 1)):
        tensor = tensors.get(name)
        if tensor is None:
            continue
        if tensor.ndim != 2 or tensor.shape[dim] % count:
            raise ValueError(
                f"{site.name} has {count} experts and {name} of shape {tuple(tensor.shape)}, which is not that of "
                "as many; load the folder onto the model it is of"
            )
        parts = tensor.unflatten(dim, (count, -1) if dim == 0 else (-1, count))
        by_expert[name] = parts if dim == 0 else parts.permute(2, 0, 1)
    return by_expert


def whole_embeddings(model: nn.Module, stated: Mapping[str, Any], rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of embeddings, by path, in which the rows of ``trainable_token_indices`` are the folder's.

    A head that shares its weight with the embedding has them too, as in peft.
    """
    modules = {unwrapped_path(path): module for path, module in model.named_modules(remove_duplicate=False)}
    whole: dict[str, Tensor] = {}
    for path, tensor in rows.items():
        weight = getattr(modules.get(unwrapped_path(path)), "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2:
            raise ValueError(
                f"the folder trains rows of {path}, which is no embedding of this model; load it onto its"
            )
        index = _token_indices(stated.get("trainable_token_indices"), path)
        most = max(index, default=0)
        if tensor.shape != (len(index), weight.shape[1]) or most >= len(weight):
            raise ValueError(
                f"the folder holds {tuple(tensor.shape)} numbers for {len(index)} rows of {path}, the last of them "
                f"{most}, and its weight has the shape {tuple(weight.shape)}; load it onto the model it is of"
            )
        with torch.no_grad():
            changed = weight.detach().clone()
            changed[index] = tensor.to(changed)
        for other, module in modules.items():
            if getattr(module, "_parameters", {}).get("weight") is weight:
                whole[f"{other}.weight"] = changed
    return whole


def _token_indices(stated: Any, path: str) -> list[int]:
    """The rows of an embedding that were trained: of one list for the input's, or by the ends of paths."""
    by_name: Iterable[Any] = stated.items() if isinstance(stated, dict) else [("", stated)]
    for name, index in by_name:
        fits = isinstance(name, str) and (not name or path == name or path.endswith(f".{name}"))
        if fits and isinstance(index, list) and all(type(i) is int and i >= 0 for i in index):
            return index
    raise ValueError(f"trainable_token_indices={stated!r} names no rows of {path}; copy the folder again")
