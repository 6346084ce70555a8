"""Layers of a model that can be replaced by ones that hold a format, and the matrix of each."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from polyad.layers import Linear
from polyad.models.layer_matrices import CONVOLUTIONS, linear_types, matrix_shape
from polyad.models.surgery import Which, decoder_linears, select


def compressible(model: nn.Module, which: Which | None = None, *, grouped: bool = False) -> dict[str, nn.Module]:
    """The linear layers and convolutions to compress, by path.

    Without ``which``: of a model of transformers every linear layer but the output head, of any other module all
    linear layers and convolutions that can be replaced. One named by ``which`` that cannot be replaced is refused:
    a convolution in groups (unless ``grouped``), one whose padding is no number, a layer whose class has a forward
    pass of its own.
    """
    if which is not None:
        chosen = select(model, which, of=(*linear_types(), *CONVOLUTIONS))
        for path, module in chosen.items():
            said = obstacle(module, grouped=grouped)
            if said is not None:
                raise ValueError(f"{path} cannot be replaced: {said}; leave it out of the selection")
        return chosen
    if hasattr(model, "get_output_embeddings"):
        return {path: m for path, m in decoder_linears(model).items() if obstacle(m) is None}
    kinds = (*linear_types(), Linear, *CONVOLUTIONS)
    layers: dict[str, nn.Module] = {p: m for p, m in model.named_modules() if isinstance(m, kinds)}
    chosen = {path: module for path, module in layers.items() if obstacle(module) is None}
    if not chosen:
        raise ValueError(
            f"{type(model).__name__} has no layer to compress: none of its {len(layers)} linear layers and "
            "convolutions can be replaced"
        )
    return chosen


def obstacle(module: nn.Module, *, grouped: bool = False) -> str | None:
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
        if result.shape != plain.shape or not torch.allclose(result, plain):
            return False
    return True
