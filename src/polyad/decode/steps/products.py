"""Products of the loop: linear layers, several of one input as one where they fit together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from polyad.decode.outline import OwnModules
from polyad.formats import Format, stack_rows
from polyad.layers import Factors, Linear
from polyad.layers.kernels import product
from polyad.models.layer_matrices import is_transposed, linear_types

Run = Callable[[Tensor], Tensor]


class Arithmetic(NamedTuple):
    """The dtype of the loop, the one in which the model's own modules are called, and the kernels of products."""

    dtype: torch.dtype
    called: torch.dtype
    kernels: str

    @property
    def chosen(self) -> str:
        """Packed products round as bfloat16 does; whoever asks for more and names none gets it."""
        return "plain" if self.kernels == "auto" and self.dtype.itemsize > 2 else self.kernels


def joint_product(layers: Sequence[nn.Module], arithmetic: Arithmetic) -> Run:
    """The outputs of layers with one input, side by side."""
    dtype, kernels = arithmetic.dtype, arithmetic.chosen
    parts = [_parts(layer) for layer in layers]
    whole = [part for part in parts if part is not None]
    if len(whole) == len(layers) > 1:
        stacked = _stack([w() if isinstance(w, Factors) else w for w, _ in whole], dtype)
        if stacked is not None:
            return product(stacked, _joined_bias(whole), dtype, kernels=kernels)
    each = [
        _called(layer, arithmetic) if part is None else product(*part, dtype, kernels=kernels)
        for layer, part in zip(layers, parts, strict=True)
    ]
    if len(each) == 1:
        return each[0]
    return lambda x: torch.cat([one(x) for one in each], -1)


def _parts(layer: Any) -> tuple[Factors | Tensor, Tensor | None] | None:
    """The weight (out, in) and the bias of a layer that does nothing but multiply with it; None for any other."""
    if layer._forward_hooks or layer._forward_pre_hooks:
        return None
    bias = None if layer.__dict__.get("_parameters", {}).get("bias") is None else layer.bias.detach()
    kind: Any = type(layer)
    weight: Any = getattr(layer, "weight", None)
    if kind is Linear:
        return weight, bias
    if kind.forward is nn.Linear.forward:
        return weight.detach(), bias
    if isinstance(layer, linear_types()) and is_transposed(layer):
        return weight.detach().mT.contiguous(), bias
    return None


def _called(layer: Any, arithmetic: Arithmetic) -> Run:
    dtype, called, _ = arithmetic
    if dtype == called:
        return lambda x: layer(x)
    return lambda x: layer(x.to(called)).to(dtype)


def own_function(own: OwnModules, arithmetic: Arithmetic) -> Run:
    """The sum of what modules of the model make of rows (rows, width), in the dtype that they are in."""
    dtype, called, _ = arithmetic

    def total(x: Tensor) -> Tensor:
        rows = x.to(called) if own.flat else x.to(called)[None]
        outputs = [module(rows) for module in own.modules]
        tensors = [y if isinstance(y, Tensor) else y[0] for y in outputs]
        return functools.reduce(torch.add, tensors).reshape(x.shape).to(dtype)

    return total


def _stack(weights: list[Format | Tensor], dtype: torch.dtype) -> Format | Tensor | None:
    """One weight of all rows; dense ones that would be copied for nothing else stay apart."""
    if all(isinstance(weight, Tensor) and weight.dtype == dtype for weight in weights):
        return None
    return stack_rows(weights)


def _joined_bias(parts: Sequence[tuple[Any, Tensor | None]]) -> Tensor | None:
    if all(bias is None for _, bias in parts):
        return None
    like = next(bias for _, bias in parts if bias is not None)
    return torch.cat([like.new_zeros(weight.shape[0]) if bias is None else bias for weight, bias in parts])
