"""Folders of the package peft: adapter_config.json and adapter_model.safetensors. peft itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from polyad._stated import in_words, read_stated
from polyad.adapters import Adapters
from polyad.adapters.host.plan import Plan, plan
from polyad.adapters.host.sites import KINDS, Site, adaptable_sites, literal
from polyad.interop._peft_methods import READERS, Layers, shared_numbers
from polyad.interop._peft_writing import CONFIG, PREFIX, WEIGHTS, to_peft

__all__ = ["from_peft", "is_peft", "to_peft"]

ALTERING = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Starts with which peft also changes the weights that it adapts."""

UNREAD = (
    "alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "lora_bias", "modules_to_save",
    "monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora",
)  # fmt: skip
"""Settings of peft that change what an adapter computes and that nothing here does."""


INSTEAD = "; put it into the model with peft's merge_and_unload, and load that model"
"""What to do with an adapter that is not read."""


def is_peft(folder: str | Path) -> bool:
    """True for a folder that looks like one of peft's."""
    return (Path(folder) / CONFIG).is_file()


def from_peft(adapters: Adapters, folder: str | Path, name: str = "peft") -> str:
    """Attach the adapter in a folder of peft's, under this name, and return the name. All or nothing.

    Read are LoRA (rank-stabilised, with patterns of ranks and alphas too), DoRA, LoHa, LoKr and VeRA, on linear,
    embedding and convolution layers where peft has them. Everything is computed as peft does. What LoKr holds as
    products of thin matrices is multiplied out, and its numbers are counted so. ValueError for what is not read:
    other methods, trained biases and whole modules, starts that altered the base, kernels in effective form; each
    says what to do.
    """
    stated, tensors = _read(Path(folder))
    adapters.refuse_name(name)
    reader = READERS.get(str(stated.get("peft_type")))
    if reader is None:
        readable = ", ".join(READERS)
        raise ValueError(
            f"{folder} holds an adapter of the type {stated.get('peft_type')}; readable are {readable}{INSTEAD}"
        )
    _refuse_settings(stated)
    layers, shared, whole = _by_layer(tensors)
    _refuse_other_weights(adapters, whole, Path(folder))
    sites = _sites(adapters, layers, Path(folder))
    with in_words(f"the adapter in {folder} cannot be read", "save it again with peft"):
        method, arguments, numbers = reader(stated, sites, layers, shared)
        planned = plan(
            adapters.model, [literal(path) for path in sites], method, of=KINDS, tied=True, begin=False,
            dropout=_dropout(stated, sites.values()), **arguments,
        )  # fmt: skip
        for key, tensor in shared_numbers(planned, shared, stated).items():
            planned.bank.hold(key, tensor)
        _fill(planned, numbers)
    adapters.place(name, planned)
    return name


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        stated = read_stated(folder / CONFIG, dict[str, Any], "save it again with peft")
    except ValueError as error:
        raise ValueError(f"{folder} holds no adapter of peft's: {error}") from None
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").exists()
        what = "a pickle is not read: save it with safe_serialization=True" if pickled else "copy the folder again"
        raise ValueError(f"{folder / WEIGHTS} is missing; {what}")
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, UnicodeError, RuntimeError) as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read ({error}); copy the folder again") from None
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(
                f"{key} in {folder} holds numbers that are NaN or infinite; give an adapter without them"
            )
    return stated, tensors


def _refuse_settings(stated: Mapping[str, Any]) -> None:
    used = [key for key in UNREAD if stated.get(key)]
    if used:
        raise ValueError(f"the adapter was made with {used[0]}={stated[used[0]]!r}, which is not read{INSTEAD}")
    if stated.get("bias", "none") != "none":
        raise ValueError(
            f"the adapter was trained with bias={stated['bias']!r}; only adapters with 'none' are read{INSTEAD}"
        )
    start = str(stated.get("init_lora_weights", True)).lower()
    if start.startswith(ALTERING):
        raise ValueError(
            f"init_lora_weights={start!r} also changes the weights adapted; save it as an ordinary LoRA with peft's "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...) first"
        )


def _by_layer(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor], dict[str, Tensor]]:
    """The tensors by layer and name, those that layers share, and copies of weights of the model by their paths."""
    layers: dict[str, dict[str, Tensor]] = {}
    shared: dict[str, Tensor] = {}
    whole: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        words = key.removeprefix(PREFIX).removesuffix(".weight").split(".")
        if "vera_A" in words or "vera_B" in words:
            shared[next(word for word in words if word.startswith("vera_"))] = tensor
            continue
        if key.endswith(".base_layer.weight"):  # peft writes the embeddings out where one of them is adapted
            whole[".".join(words[:-1])] = tensor
            continue
        at = next((i for i, word in enumerate(words) if word.startswith(("lora_", "hada_", "lokr_", "vera_"))), None)
        if at is None or at != len(words) - 1:
            raise ValueError(f"the tensor {key} is no part of an adapter that can be read{INSTEAD}")
        layers.setdefault(".".join(words[:at]), {})[words[at]] = tensor
    return layers, shared, whole


def _refuse_other_weights(adapters: Adapters, whole: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse copies of weights that are not the model's own, up to the narrower of both dtypes."""
    every = adaptable_sites(adapters.model)
    for path, tensor in whole.items():
        weight = every[path].layer._parameters.get("weight") if path in every else None
        if weight is not None and weight.shape == tensor.shape:
            narrow = min(weight.dtype, tensor.dtype, key=lambda dtype: dtype.itemsize)
            if torch.equal(weight.detach().cpu().to(narrow), tensor.to(narrow)):
                continue
        raise ValueError(
            f"{folder} brings a weight of its own for {path}, of shape {tuple(tensor.shape)}, which is not the "
            "model's; only adapters are read: load the model with that weight first"
        )


def _sites(adapters: Adapters, layers: Layers, folder: Path) -> dict[str, Site]:
    if not layers:
        raise ValueError(f"{folder / WEIGHTS} holds no tensors of an adapter; save it again with peft")
    every = adaptable_sites(adapters.model)
    for path in layers:
        if path not in every:
            raise ValueError(
                f"{folder} adapts {path}, which this model does not have; load it onto the model it is of"
            )
    return {path: site for path, site in every.items() if path in layers}


def _dropout(stated: Mapping[str, Any], sites: Any) -> float:
    """The share of inputs dropped; embeddings and mixtures have no inputs to drop."""
    share = float(stated.get("lora_dropout") or stated.get("vera_dropout") or 0.0)
    return 0.0 if any(site.kind in ("embedding", "experts") for site in sites) else share


def _fill(planned: Plan, numbers: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Give the planned adapters their numbers, and what follows from the weight."""
    for site, adapter in planned.adapters:
        tensors, stored = adapter.state_dict(), numbers[site.path]
        for key, tensor in tensors.items():
            if tensor.shape != stored[key].shape:
                raise ValueError(
                    f"{site.name} needs {key} of shape {tuple(tensor.shape)} and the folder holds "
                    f"{tuple(stored[key].shape)}; load it onto the model it is of"
                )
        with torch.no_grad():
            for key, tensor in tensors.items():
                tensor.copy_(stored[key])
