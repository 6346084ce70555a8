"""The experts of a mixture with adapters on their three-dimensional parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import vmap

from polyad.adapters.adapter import Adapter
from polyad.adapters.frozen.layer_function import call_with_weights
from polyad.adapters.frozen.layer_kinds import FrozenExpert
from polyad.adapters.host.stand_in import AdapterSpec, Common, StandIn
from polyad.adapters.host.unsharded import whole_adapter
from polyad.adapters.sharded import whole
from polyad.formats import Format


def expert_parameters(module: nn.Module) -> dict[str, tuple[int, int]]:
    """The shapes (out, in) of a module's parameters that hold one matrix an expert, by name."""
    counts = {getattr(module, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")}
    turned = bool(getattr(module, "is_transposed", False))
    return {
        name: (p.shape[2], p.shape[1]) if turned else (p.shape[1], p.shape[2])
        for name, p in module._parameters.items()
        if p is not None and p.ndim == 3 and p.shape[0] in counts and p.is_floating_point()
    }


def stack_experts(experts: list[Adapter]) -> Adapter:
    """The first of these adapters, holding the tensors of all: each gets a leading dimension, one entry an expert."""
    first = experts[0]
    for path, module in first.named_modules():
        rest = [each.get_submodule(path) for each in experts]
        for table in ("_parameters", "_buffers"):
            for name, tensor in getattr(module, table).items():
                if tensor is not None:
                    together = torch.stack([getattr(each, table)[name].detach() for each in rest])
                    getattr(module, table)[name] = nn.Parameter(together) if table == "_parameters" else together
    return first


class ExpertTerm(NamedTuple):
    """An adapter of one parameter of a mixture, counted ``weight`` times; once where that is None."""

    adapter: Adapter
    parameter: str
    update: UpdateModule
    weight: Tensor | None


class AdaptedExperts(StandIn):
    """A mixture's experts with named adapters, whose updates are folded into the weights for the forward pass.

    One adapter serves all experts of a parameter: its tensors have a leading dimension. Folding costs the updates'
    dense forms, once a pass, whatever the number of tokens.
    """

    def __init__(self, layer: nn.Module, common: Common) -> None:
        super().__init__(layer, common)
        self.transposed = bool(getattr(layer, "is_transposed", False))

    def add(self, name: str, parameter: str, adapter: Adapter, spec: AdapterSpec) -> None:
        """Hold an adapter of one parameter, made by ``stack_experts``."""
        self.hold(f"{name}[{parameter}]", ExpertTerm(adapter, parameter, UpdateModule(adapter), None), spec)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.common.routings.current is not None:
            raise ValueError(
                "a mixture's experts see tokens, not rows of the batch, and take no adapters by row; detach the "
                "adapters from them, or leave routed()"
            )
        if not self.terms or self.original is not None:
            return self.layer(*args, **kwargs)
        return call_with_weights(self.layer, self.updated_weights(), *args, **kwargs)

    def updated_weights(self) -> dict[str, Tensor]:
        """The adapted parameters with all active updates, in the layer's own dtype and layout."""
        weights: dict[str, Tensor] = {}
        for adapter, parameter, module, weight in self.terms:
            update = _dense(module, self._experts(parameter)) * adapter.scale
            update = update if weight is None else update * weight
            total = weights.get(parameter, self._parameters[parameter])
            weights[parameter] = total + (update.mT if self.transposed else update)  # pyright: ignore
        return {name: tensor.to(self._parameters[name].dtype) for name, tensor in weights.items()}  # pyright: ignore

    def updates(self, name: str) -> Iterator[tuple[str, Tensor]]:
        for adapter, parameter, *_ in self.routes[name]:
            module = UpdateModule(whole_adapter(adapter))
            yield f".{parameter}", _dense(module, whole(self._experts(parameter))) * adapter.scale

    def _experts(self, parameter: str) -> Tensor:
        """A parameter as (experts, out, in)."""
        weights = self._parameters[parameter]
        assert weights is not None
        return weights.mT if self.transposed else weights


class UpdateModule(nn.Module):
    """An adapter whose call is its update."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(self, weight: Tensor) -> Tensor:
        update = self.adapter.update(FrozenExpert(weight))
        return update.to_dense() if isinstance(update, Format) else update


def _dense(module: UpdateModule, weights: Tensor) -> Tensor:
    """The updates of all experts, (experts, out, in)."""
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    run: Callable[..., Tensor] = vmap(lambda tensors, weight: call_with_weights(module, tensors, weight))
    return run(state, weights)
