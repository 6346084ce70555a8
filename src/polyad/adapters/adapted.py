"""A linear layer with adapters on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor, nn
from torch.nn import functional as F


class Adapter(nn.Module):
    """A trainable change of a frozen weight of shape (out, in). A subclass gives ``weight``."""

    def weight(self, base: Tensor) -> Tensor:
        """The changed weight, in the base's dtype."""
        raise NotImplementedError

    def forward(self, x: Tensor, base: Below) -> Tensor:
        """The changed layer on x. This forms the weight; subclasses do better where their algebra permits."""
        return F.linear(x, self.weight(base.weight), base.bias)


class Below:
    """What an adapter changes: the frozen layer, with the adapters that were attached before it."""

    def __init__(self, layer: nn.Module, adapters: Sequence[Adapter]) -> None:
        self._layer, self._adapters = layer, adapters

    def __call__(self, x: Tensor) -> Tensor:
        if not self._adapters:
            return self._layer(x)
        return self._adapters[-1](x, Below(self._layer, self._adapters[:-1]))

    @property
    def weight(self) -> Tensor:
        weight = self._layer.weight
        if not isinstance(weight, Tensor):
            raise TypeError("the base's weight is a format, not a tensor; only adapters that never form it apply")
        for adapter in self._adapters:
            weight = adapter.weight(weight)
        return weight

    @property
    def bias(self) -> Tensor | None:
        return self._layer.bias  # pyright: ignore[reportReturnType]


class Adapted(nn.Module):
    """A linear layer with named adapters. The layer's own parameters keep their names in the state dict."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.__dict__["_layer"] = layer  # not a submodule: its contents are registered here, under its own names
        self._parameters, self._buffers = layer._parameters, layer._buffers
        self._modules.update(layer._modules)
        self.adapters = nn.ModuleDict()
        self.__dict__["_original"] = None

    @property
    def layer(self) -> nn.Module:
        """The layer as it was before."""
        return self.__dict__["_layer"]

    @property
    def merged(self) -> bool:
        return self.__dict__["_original"] is not None

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if self.merged else self._below()(x)

    def merge(self) -> None:
        """Put the changed weight into the layer's parameter and keep the original beside it."""
        changed = self._below().weight.detach()
        weight = self._parameters["weight"]
        assert weight is not None
        self.__dict__["_original"], weight.data = weight.data, changed

    def unmerge(self) -> None:
        """Put the original back, bit by bit; does nothing where nothing is merged."""
        weight, original = self._parameters.get("weight"), self.__dict__["_original"]
        if weight is not None and original is not None:
            weight.data = original.to(device=weight.device, dtype=weight.dtype)
            self.__dict__["_original"] = None

    def train(self, mode: bool = True) -> Self:
        self.layer.training = mode
        return super().train(mode)

    def _below(self) -> Below:
        return Below(self.layer, [a for a in self.adapters.values() if isinstance(a, Adapter)])

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_layer"], name)  # in_features and the like
