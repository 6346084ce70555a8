"""The reasons for which a layer cannot be replaced by one that holds a format."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

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
