"""Products of the loop: linear layers, several of one input as one where they fit together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyad.decode.outline import OwnModules
from polyad.formats import Format, LowRank, stack_rows
from polyad.layers import Factors, Linear
from polyad.layers.kernels import product
from polyad.models.layer_matrices import is_transposed, linear_types

Run = Callable[[Tensor], Tensor]


class Part(NamedTuple):
    """A weight (out, in) and a bias, and what low-rank updates add to the weight."""

    weight: Factors | Tensor
    bias: Tensor | None
    updates: tuple[LowRank, ...] = ()


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
    parts = [_part(layer) for layer in layers]
    whole = [part for part in parts if part is not None]
    if len(whole) == len(layers) > 1:
        stacked = _stack([w() if isinstance(w, Factors) else w for w, *_ in whole], dtype)
        if stacked is not None:
            return _updated(product(stacked, _joined_bias(whole), dtype, kernels=kernels), whole, dtype)
    each = [
        _called(layer, arithmetic)
        if part is None
        else _updated(product(part.weight, part.bias, dtype, kernels=kernels), [part], dtype)
        for layer, part in zip(layers, parts, strict=True)
    ]
    if len(each) == 1:
        return each[0]
    return lambda x: torch.cat([one(x) for one in each], -1)


def _part(layer: Any) -> Part | None:
    """The numbers of a layer that does nothing but multiply with them, under low-rank adapters or none; else None."""
    if _is_changed(layer):
        return None
    updates = layer.low_rank_updates() if hasattr(layer, "low_rank_updates") else ()
    if updates is None:
        return None
    layer = getattr(layer, "layer", layer)
    if _is_changed(layer):
        return None
    bias = None if layer.__dict__.get("_parameters", {}).get("bias") is None else layer.bias.detach()
    kind: Any = type(layer)
    weight: Any = getattr(layer, "weight", None)
    if kind is Linear:
        return Part(weight, bias, updates)
    if kind.forward is nn.Linear.forward:
        return Part(weight.detach(), bias, updates)
    if isinstance(layer, linear_types()) and is_transposed(layer):
        return Part(weight.detach().mT.contiguous(), bias, updates)
    return None


def _is_changed(layer: nn.Module) -> bool:
    """True where hooks or a forward of the module's own do more than its class does."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks or "forward" in vars(layer))


def _updated(run: Run, parts: Sequence[Part], dtype: torch.dtype) -> Run:
    """A product of the parts' weights below each other with their updates added, all of these in two products."""
    if not any(part.updates for part in parts):
        return run
    blocks = [
        torch.cat([u.left.to(dtype) for u in part.updates], 1)
        if part.updates
        else torch.zeros(part.weight.shape[0], 0, dtype=dtype, device=part.weight.device)
        for part in parts
    ]
    left = torch.block_diag(*blocks)  # (out of all, ranks of all)
    right = torch.cat([u.right.to(dtype) for part in parts for u in part.updates])  # (ranks of all, in)
    return lambda x: run(x) + F.linear(F.linear(x, right), left)


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


def _joined_bias(parts: Sequence[Part]) -> Tensor | None:
    if all(bias is None for _, bias, _ in parts):
        return None
    like = next(bias for _, bias, _ in parts if bias is not None)
    return torch.cat([like.new_zeros(weight.shape[0]) if bias is None else bias for weight, bias, _ in parts])
