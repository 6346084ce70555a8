"""The tensors of an adapter by name, and the check that others fit in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from polyad.adapters.adapter import Adapter, Bank

T = TypeVar("T", bound=Tensor)


def tensors_by_name(
    bank: Bank | None,
    adapters: Iterable[tuple[str, Adapter]],
    tensors_of: Callable[[nn.Module], Iterable[tuple[str, T]]],
) -> dict[str, T]:
    """The tensors that ``tensors_of`` names in a bank, under ``bank``, and in adapters, under their sites' names."""
    modules: list[tuple[str, nn.Module]] = [] if bank is None else [("bank", bank)]
    modules += adapters
    return {f"{place}.{key}": tensor for place, module in modules for key, tensor in tensors_of(module)}


def saved_tensors(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """The tensors of a module's state dict."""
    return module.state_dict().items()


def fill(name: str, tensors: Mapping[str, Tensor], numbers: Mapping[str, Tensor]) -> None:
    """Copy numbers into the tensors of the adapters ``name``; refuse other names, shapes or kinds of numbers."""
    missing, extra = sorted(tensors.keys() - numbers.keys()), sorted(numbers.keys() - tensors.keys())
    if missing or extra:
        raise ValueError(
            f"the tensors do not fit the adapters {name!r}: {len(missing)} missing {missing[:3]}, {len(extra)} that "
            f"have no place {extra[:3]}; give those that state_dict({name!r}) names"
        )
    for key, tensor in tensors.items():
        if tensor.shape != numbers[key].shape:
            raise ValueError(f"{key} has shape {tuple(numbers[key].shape)} and needs {tuple(tensor.shape)}")
        if tensor.is_floating_point() != numbers[key].is_floating_point():
            raise ValueError(f"{key} holds {numbers[key].dtype} and needs {tensor.dtype}")
    with torch.no_grad():
        for key, tensor in tensors.items():
            tensor.copy_(numbers[key])
