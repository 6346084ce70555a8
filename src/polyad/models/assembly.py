"""A model made again from what its folder says of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polyad._card import import_methods
from polyad.layers import Conv, Embedding, Factors, Linear
from polyad.models.described import KINDS
from polyad.models.manifest import FOREIGN, skeleton

LAYERS = {"Linear": Linear, "Embedding": Embedding, "Conv": Conv}


def assemble(
    config: dict[str, Any] | None,
    stated: Mapping[str, Any],
    tensors: dict[str, Tensor],
    buffers: dict[str, Tensor],
    dtype: torch.dtype | None,
    like: nn.Module | None = None,
) -> Any:
    """A model from its config, or else from another module of its kind; its manifest; and its tensors."""
    configuration = _configuration(config) if config is not None else None
    model: Any = empty_copy(like) if like is not None else skeleton(configuration)
    place_modules(model, stated)
    full = {**tensors, **{alias: tensors[owner] for alias, owner in stated["ties"].items()}}
    try:
        missing, unexpected = model.load_state_dict(full, strict=False, assign=True)
    except RuntimeError as error:  # shapes that differ
        raise ValueError(f"the weights do not fit the model: {str(error).splitlines()[-1].strip()}") from None
    if missing or unexpected:
        raise ValueError(
            f"the weights do not fit the model: missing {missing[:3]}, unexpected {unexpected[:3]}; "
            "the folder mixes files of two models"
        )
    for alias, owner in stated["ties"].items():
        tie_tensors(model, alias, owner, stated["ties"])
    if like is not None and not buffers:  # a folder for transformers, which makes them itself
        names = {name for name, b in model.named_buffers() if b.is_meta}
        buffers = {name: b.detach().clone() for name, b in like.named_buffers() if name in names}
    for name, buffer in buffers.items():
        put_tensor(model, name, buffer)
    left = [name for name, t in (*model.named_parameters(), *model.named_buffers()) if t.is_meta]
    if left:
        raise ValueError(f"no numbers were found for {', '.join(left[:3])}; the folder is not whole")
    return model if dtype is None else _cast(model, dtype)


def _cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model in a dtype, but for rotary frequencies and for layers that transformers keeps in float32."""
    exact: dict[str, Tensor] = {name: b for name, b in model.named_buffers() if name.endswith("inv_freq")}
    layers = _float32_layers(model, dtype)
    for name, parameter in model.named_parameters():
        if layers.intersection(name.split(".")) and parameter.is_floating_point():
            exact[name] = nn.Parameter(parameter.detach().float(), parameter.requires_grad)
    model.to(dtype)
    for name, tensor in exact.items():
        put_tensor(model, name, tensor)
    return model


def _float32_layers(model: Any, dtype: torch.dtype) -> set[str]:
    """Names of the layers that transformers keeps in float32 when it loads this model in a dtype."""
    names: set[str] = set(
        getattr(model, "dtype_plan", None) or ()
    )  # as transformers 5.0 holds them, whatever the dtype
    for flag, dtypes in (
        ("_keep_in_fp32_modules", (torch.float16,)),
        ("_keep_in_fp32_modules_strict", (torch.float16, torch.bfloat16)),
    ):
        if dtype in dtypes:
            names |= set(getattr(model, flag, None) or ())
    return names


def place_modules(model: nn.Module, stated: Mapping[str, Any]) -> None:
    """Put the modules that a manifest describes, without their numbers, in the places of others."""
    for path, spec in stated["modules"].items():
        try:
            before = model.get_submodule(path)
        except AttributeError:
            raise ValueError(
                f"the folder holds a {stated.get('kind', 'module')} with a module at {path}, and this "
                f"{type(model).__name__} has none there; give like= the architecture that was saved"
            ) from None
        model.set_submodule(path, _module(spec, before))


def _configuration(config: dict[str, Any]) -> Any:
    import transformers

    config = dict(config)
    if config["model_type"] == FOREIGN:
        config["model_type"] = config.pop("polyad_model_type")
    try:
        configuration: Any = transformers.AutoConfig.for_model(**config)
    except ValueError:
        raise ValueError(
            f"transformers {transformers.__version__} knows no model of type {config['model_type']!r}; upgrade with: "
            "pip install -U transformers"
        ) from None
    configuration.architectures = config["architectures"]
    return configuration


def empty_copy(module: nn.Module) -> nn.Module:
    """A copy of a module whose parameters and buffers have shapes and no numbers."""
    memo: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        empty = tensor.detach().to("meta")
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copy.deepcopy(module, memo)


def restore_dtypes(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Give parameters and buffers the dtypes in which they are stored, where loading gave all of them one."""
    for name, tensor in model.state_dict(keep_vars=True).items():
        stored = tensors.get(name)
        if stored is not None and stored.dtype != tensor.dtype:
            tensor.data = stored
    return model


def _module(spec: Mapping[str, Any], before: nn.Module) -> nn.Module:
    kind = spec["layer"]
    if kind == "torch.Linear":
        return nn.Linear(spec["in"], spec["out"], bias=spec["bias"], device="meta")
    if kind not in KINDS and kind not in LAYERS:
        import_methods()  # it may be of a package that is not imported yet
    if kind in KINDS:
        return KINDS[kind].from_spec(dict(spec), before)
    if kind not in LAYERS:
        raise ValueError(
            f"no layer is called {kind!r}; the folder was written by a newer polyad: pip install -U polyad"
        )
    return LAYERS[kind].from_spec(dict(spec))


def tie_tensors(model: nn.Module, alias: str, owner: str, ties: Mapping[str, str]) -> None:
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
        put_tensor(model, alias, getattr(model.get_submodule(home), leaf))


def put_tensor(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Make this the tensor of a name in the state dict."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    table: Any = module._parameters if isinstance(tensor, nn.Parameter) else module._buffers
    table[leaf] = tensor
