"""The reasons for which a layer cannot be replaced by one that holds a format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from polyad.layers import Factors
from polyad.models.layer_matrices import CONVOLUTIONS, linear_types, matrix_shape


def obstacle_at(
    model: nn.Module, path: str, sharing: Iterable[str], uncalled: str | None, *, grouped: bool = False
) -> str | None:
    """The reason that the layer at a path cannot be replaced: its own, or that of one ``sharing`` its weight.

    ``uncalled`` says what reads its weight without calling it, if anything does.
    """
    for place in (path, *sharing):
        module = model.get_submodule(place)
        said = layer_obstacle(module, grouped=grouped and place == path)
        if place == path:
            said = said or uncalled
        elif said is None and isinstance(module, CONVOLUTIONS):
            said = "it is a convolution"
        if said is not None:
            return said if place == path else f"{place} shares its weight and cannot be replaced: {said}"
    return None


def layer_obstacle(module: nn.Module, *, grouped: bool = False) -> str | None:
    """The reason that a layer cannot be replaced by one that holds a format; None where it can."""
    name = type(module).__name__
    if name == "NonDynamicallyQuantizableLinear":
        return "nn.MultiheadAttention reads its weight without calling it"
    if isinstance(module, CONVOLUTIONS):
        if module.groups > 1 and not grouped:
            return (
                f"it is a convolution in {module.groups} groups, which factors would mix (quantising it is possible)"
            )
        if isinstance(module.padding, str) or module.padding_mode != "zeros":
            return f"its padding is {module.padding!r} with {module.padding_mode}; give numbers of zeros"
    if isinstance(module, nn.Embedding):
        plain = type(module).forward is nn.Embedding.forward and module.max_norm is None
        return None if plain else f"its class {name} changes the rows that it looks up, which a new layer would not"
    if isinstance(module, (*linear_types(), *CONVOLUTIONS)) and not _as_torch_does(module):
        return f"its class {name} has a forward pass of its own, which a new layer would not have"
    return None


@torch.no_grad()
def _as_torch_does(module: Any) -> bool:
    """Compare a layer of a subclass with torch's own, on random numbers: true if they agree.

    Of sizes one apart through a whole stride: padding by one column may reach no position of every other size.
    """
    kind = cast(Any, next(k for k in (*linear_types(), *CONVOLUTIONS) if issubclass(type(module), k)))
    if type(module) is kind or type(module).forward is kind.forward:
        return True
    weight: Tensor = module.weight
    generator = torch.Generator().manual_seed(0)
    flat = kind not in CONVOLUTIONS
    for more in range(1 if flat else 1 + max(module.stride)):
        shape = [2, matrix_shape(module)[1]] if flat else [1, module.in_channels]
        if not flat:
            geometry = zip(module.kernel_size, module.dilation, module.stride, strict=True)
            shape += [(k - 1) * d + 1 + 2 * s + more for k, d, s in geometry]
        x = torch.randn(shape, generator=generator).to(weight)
        try:
            result, plain = module(x), kind.forward(module, x)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return False
        if not isinstance(result, Tensor) or result.shape != plain.shape or not torch.allclose(result, plain):
            return False
    return True


def shared_weights(chosen: Mapping[str, nn.Module]) -> dict[str, str]:
    """All but one of the layers with one weight; of an embedding and a head the head stays."""
    owners: dict[int, str] = {}
    for path in sorted(chosen, key=lambda p: isinstance(chosen[p], nn.Embedding)):
        owners.setdefault(id(chosen[path].weight), path)
    return {
        path: f"the weight of {owners[id(module.weight)]}, with which it is compressed"
        for path, module in chosen.items()
        if owners[id(module.weight)] != path
    }


def nothing_left(model: nn.Module, layers: Mapping[str, nn.Module], left: Mapping[str, str]) -> str:
    """The sentence on a model of which every layer is left whole, with the first reasons."""
    reasons = "; ".join(f"{path} is left ({reason})" for path, reason in list(left.items())[:3])
    return (
        f"{type(model).__name__} has no layer to compress: none of its {len(layers)} linear layers and "
        f"convolutions can be replaced{': ' + reasons if reasons else ''}"
    )


def fused_experts(model: nn.Module) -> Iterator[str]:
    """The paths of parameters that hold one matrix an expert in one tensor."""
    for path, module in model.named_modules():
        if isinstance(module, (*CONVOLUTIONS, Factors)):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 3 and "expert" in f"{path}.{type(module).__name__}".lower():
                yield f"{path}.{name}"


def refuse_compressed(path: str, layer: Any) -> None:
    """Refuse a layer whose weight is a format already."""
    if not isinstance(layer.weight, Tensor):
        raise ValueError(
            f"{path} is compressed already (it holds {layer.weight()!r}); compress the original, with both methods "
            "as the steps of one recipe, or leave the layer out of the selection"
        )


def check_numbers(model: nn.Module) -> None:
    """Refuse a model of which a parameter holds NaN or infinity, naming it."""
    for name, parameter in model.named_parameters():
        values = parameter.detach().float() if parameter.dtype.itemsize == 1 else parameter
        if not parameter.is_meta and not bool(torch.isfinite(values).all()):
            bad = int((~torch.isfinite(values)).sum())
            raise ValueError(
                f"{name} of shape {tuple(parameter.shape)} holds {bad} numbers that are NaN or infinite; the file is "
                "damaged or was cut off in training: get the model again"
            )
