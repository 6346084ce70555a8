"""Folders of the package peft: adapter_config.json and adapter_model.safetensors. peft itself is not needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyad._stated import in_words
from polyad._types import check_type
from polyad.adapters import IA3, OFT, Adapters
from polyad.adapters.host.choose_trained import trains_weight
from polyad.adapters.host.plan import AdapterPlan, plan_adapters
from polyad.adapters.host.sites import KINDS, Site, adaptable_sites, literal
from polyad.interop._peft_folder import CONFIG, INSTEAD, WEIGHTS, read_files, refuse_settings, sort_tensors
from polyad.interop._peft_methods import READERS, Layers, shared_numbers
from polyad.interop._peft_names import sites_by_path
from polyad.interop._peft_parameters import name_experts, whole_embeddings
from polyad.interop._peft_targets import refuse_missing
from polyad.interop._peft_whole import fill_places, trained_patterns
from polyad.interop._peft_writing import refuse_other_updates, to_peft

MULTIPLYING = ("IA3", "OFT")

__all__ = ["from_peft", "is_peft", "refuse_other_updates", "to_peft"]


def is_peft(folder: str | Path) -> bool:
    """True for a folder that looks like one of peft's."""
    return (Path(folder) / CONFIG).is_file()


def from_peft(adapters: Adapters, folder: str | Path, name: str = "peft") -> str:
    """Attach the adapter in a folder of peft's, under this name, and return the name. All or nothing.

    Read are LoRA (rank-stabilised, with patterns of ranks and alphas too), DoRA, LoHa, LoKr, VeRA, IA3 and OFT, on
    linear, embedding and convolution layers where peft has them, with modules and biases that were trained whole
    (``modules_to_save``, ``bias``), LoRA on the experts of a mixture (``target_parameters``) and rows of embeddings
    (``trainable_token_indices``), whose embedding is held whole from then on. Everything is computed as peft does.
    What LoKr holds as products of thin matrices is multiplied out, and its numbers are counted so. Names of wrappers
    (``module``, ``_orig_mod``) do not count. ValueError for what is not read: other methods, starts that altered the
    base, kernels in effective form, convolutions of which peft drops something; for layers that the settings name and
    the folder has no tensors of; and for what does not fit the model.
    """
    check_type("adapters", adapters, Adapters, "give the host of the adapters: polyad.adapters.Adapters(model)")
    folder = Path(folder)
    stated, tensors = read_files(folder)
    adapters.refuse_name(name)
    reader = READERS.get(str(stated.get("peft_type")))
    if reader is None:
        readable = ", ".join(READERS)
        raise ValueError(
            f"{folder} holds an adapter of the type {stated.get('peft_type')}; readable are {readable}{INSTEAD}"
        )
    refuse_settings(stated)
    by_layer = sort_tensors(tensors, stated)
    every = adaptable_sites(adapters.model)
    _refuse_other_weights(every, by_layer.weights, folder)
    layers = _layers_of_model(every, name_experts(stated, every, by_layer.layers), folder)
    if stated["peft_type"] in MULTIPLYING:
        _refuse_products(adapters, layers)
    whole = by_layer.whole | whole_embeddings(adapters.model, stated, by_layer.rows)
    trained = trained_patterns(adapters.model, stated, whole)
    refuse_missing(stated, _not_whole(every.values(), trained), layers)
    sites = {path: site for path, site in every.items() if path in layers}
    with in_words(f"the adapter in {folder} cannot be read", "save it again with peft"):
        method, arguments, numbers = reader(stated, sites, layers, by_layer.shared)
        planned = plan_adapters(
            adapters.model, [literal(path) for path in sites], method, of=KINDS, tied=True, begin=False,
            dropout=_dropout(stated, sites.values()), trained=trained, **arguments,
        )  # fmt: skip
        for key, tensor in shared_numbers(planned, by_layer.shared, stated).items():
            planned.bank.hold(key, tensor)
        _fill(planned, numbers, layers)
        fill_places(planned.trained, whole)
    adapters.place(name, planned)
    return name


def _not_whole(sites: Iterable[Site], trained: Iterable[str]) -> list[Site]:
    """The sites that may have an adapter of peft's: no experts, and nothing that is trained whole."""
    modules = list(trained)
    return [s for s in sites if s.kind != "experts" and not trains_weight(modules, literal(s.path), "weight")]


def _refuse_products(adapters: Adapters, layers: Iterable[str]) -> None:
    """Refuse an adapter that multiplies weights on which another such adapter acts."""
    for name in adapters.active:
        for site in adapters.sites(name):
            if site.path in layers and isinstance(adapters.of(name)[site.name], IA3 | OFT):
                raise ValueError(
                    f"{name!r} acts on {site.path} and multiplies its weight as this adapter does: peft multiplies "
                    "by both, and here the changes of active adapters are added up; activate([]) first, or merge "
                    f"{name!r} with merge(keep=False)"
                )


def _refuse_other_weights(every: Mapping[str, Site], weights: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse copies of weights that are not the model's own, up to the narrower of both dtypes."""
    sites = sites_by_path(every, weights)
    for path, tensor in weights.items():
        weight = sites[path].layer._parameters.get("weight") if path in sites else None
        if weight is not None and weight.shape == tensor.shape:
            narrow = min(weight.dtype, tensor.dtype, key=lambda dtype: dtype.itemsize)
            if torch.equal(weight.detach().cpu().to(narrow), tensor.to(narrow)):
                continue
        raise ValueError(
            f"{folder} brings a weight of its own for {path}, of shape {tuple(tensor.shape)}, which is not the "
            "model's; only adapters are read: load the model with that weight first"
        )


def _layers_of_model(every: Mapping[str, Site], layers: Layers, folder: Path) -> dict[str, Mapping[str, Tensor]]:
    """The tensors of each layer by its name in the model."""
    if not layers:
        raise ValueError(f"{folder / WEIGHTS} holds no tensors of an adapter; save it again with peft")
    sites = sites_by_path(every, layers)
    by_path: dict[str, Mapping[str, Tensor]] = {}
    for path, tensors in layers.items():
        if path not in sites:
            raise ValueError(
                f"{folder} adapts {path}, which this model does not have, by the tensors {sorted(tensors)}; load it "
                "onto the model it is of"
            )
        if sites[path].name in by_path:
            raise ValueError(f"{folder} has tensors of {sites[path].name} under two names; copy the folder again")
        by_path[sites[path].name] = tensors
    return by_path


def _dropout(stated: Mapping[str, Any], sites: Iterable[Site]) -> float:
    """The share of inputs dropped; embeddings have no inputs to drop, in peft too."""
    share = float(stated.get("lora_dropout") or stated.get("vera_dropout") or 0.0)
    return share if any(site.kind != "embedding" for site in sites) else 0.0


def _fill(planned: AdapterPlan, numbers: Layers, layers: Layers) -> None:
    """Give the planned adapters their numbers, and what follows from the weight."""
    for site, adapter in planned.adapters:
        tensors, stored = adapter.state_dict(), numbers[site.name]
        for key, tensor in tensors.items():
            if tensor.shape != stored[key].shape:
                shapes = ", ".join(f"{part} {tuple(t.shape)}" for part, t in layers[site.name].items())
                raise ValueError(
                    f"{site.name} needs {key} of shape {tuple(tensor.shape)} and the folder holds "
                    f"{tuple(stored[key].shape)} (its tensors are {shapes}); load it onto the model it is of"
                )
        with torch.no_grad():
            for key, tensor in tensors.items():
                tensor.copy_(stored[key])
