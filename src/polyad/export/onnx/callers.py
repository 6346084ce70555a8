"""Modules from the inputs of a graph to its outputs, all of them tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree


class Caller(nn.Module):
    """Calls a model with tensors by name and gives chosen tensors of what it returns."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], keys: tuple[str, ...] | None, fixed: Any) -> None:
        super().__init__()
        self.model, self.names, self.keys, self.fixed = model, names, keys, fixed

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        if self.keys is None:  # a module of torch, called in the order of its inputs
            out = (
                self.model(*tensors) if not self.fixed else self.model(**dict(zip(self.names, tensors, strict=True)))
            )
            return tuple(leaf for leaf in _pytree.tree_leaves(out) if isinstance(leaf, Tensor))
        out = self.model(**dict(zip(self.names, tensors, strict=True)), **self.fixed)
        return tuple(out[key] for key in self.keys)


class CachedCaller(nn.Module):
    """A decoder with its cache as inputs and outputs: keys and values, layer by layer."""

    def __init__(self, model: nn.Module, names: tuple[str, ...], keys: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names, self.keys = model, names, keys

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        from transformers import DynamicCache

        cache, past = DynamicCache(), tensors[len(self.names) :]
        for layer in range(len(past) // 2):  # layers that grow, since a mask sees to sliding windows
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        inputs = dict(zip(self.names, tensors[: len(self.names)], strict=True))
        out = self.model(**inputs, past_key_values=cache, use_cache=True, return_dict=True)
        present: list[Any] = [t for layer in out.past_key_values.layers for t in (layer.keys, layer.values)]
        return (*(out[key] for key in self.keys), *present)
