"""Copies of a model with its numbers in another dtype, to compare with and to trace."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from polyad.formats import Format
from polyad.layers import Factors
from polyad.models.twin import shared_twin


def copy_in_dtype(
    model: nn.Module, dtype: torch.dtype, change: Callable[[Format], Format] = lambda weight: weight
) -> nn.Module:
    """A copy with numbers in this dtype; the model is not touched, and tensors that are in it already are shared.

    Scales, integers and rotary frequencies keep theirs. ``change`` makes of each format the one that the copy holds.
    ``Module.to`` would write into the parameters that the copy shares with the model.
    """
    copy = shared_twin(model).eval()
    formats: dict[int, Factors] = {}
    for module in modules_outside_formats(copy):
        for name, child in module._modules.items():
            if isinstance(child, Factors):
                if id(child) not in formats:
                    formats[id(child)] = Factors(change(child().to(dtype)), trainable=False)
                module._modules[name] = formats[id(child)]
    _cast_plain(copy, dtype)
    return copy.requires_grad_(False)


def _cast_plain(copy: nn.Module, dtype: torch.dtype) -> None:
    new: dict[int, Tensor] = {}
    for module in modules_outside_formats(copy):
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is None or not tensor.is_floating_point() or name.endswith("inv_freq"):
                    continue
                if id(tensor) not in new:
                    cast = tensor.detach().to(dtype)
                    new[id(tensor)] = nn.Parameter(cast, False) if isinstance(tensor, nn.Parameter) else cast
                table[name] = new[id(tensor)]  # pyright: ignore[reportArgumentType]


def modules_outside_formats(model: nn.Module) -> list[nn.Module]:
    """The modules that are no part of a format; of a layer with adapters on it the layer below them too, which it
    calls and does not register."""
    modules, pending = list[nn.Module](), [model]
    seen: set[int] = set()
    while pending:
        module = pending.pop()
        if id(module) in seen or isinstance(module, Factors):
            continue
        seen.add(id(module))
        modules.append(module)
        below = vars(module).get("_layer")
        pending.extend((*module.children(), *([below] if isinstance(below, nn.Module) else [])))
    return modules
