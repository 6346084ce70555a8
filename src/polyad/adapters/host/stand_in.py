"""A module that stands where another stood, with named adapters on it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor, nn

from polyad.adapters.adapter import Bank
from polyad.adapters.host.routing import Routings
from polyad.adapters.sharded import exchange
from polyad.formats import LowRank


@dataclass
class Common:
    """The state that all adapted layers of a model share."""

    names: list[str] = field(default_factory=list)
    """The adapters attached, in the order in which they came."""
    active: dict[str, Tensor | None] = field(default_factory=dict)
    """The weight of every active adapter; None counts as one and costs nothing."""
    banks: dict[str, Bank] = field(default_factory=dict)
    homes: dict[str, nn.Module] = field(default_factory=dict)
    """The bank that the layers of an adapter share, and the module that registers it."""
    routings: Routings = field(default_factory=Routings)
    """The adapter of each row of the batch that a thread runs."""
    trainable: dict[str, bool] = field(default_factory=dict)
    """For each parameter of the root, by path, True where it was trained before the first adapter came."""
    root: weakref.ref[nn.Module] | None = None
    """The largest model that an adapter was attached through; a copy of its layers knows none."""
    trained: dict[str, list[Any]] = field(default_factory=dict)
    """The places of the model whose tensors an adapter trains whole."""
    changes: int = 0
    """The number of times that layers were put in or taken out, so that other hosts of the model look again."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "root": None}

    def root_of(self, model: nn.Module) -> nn.Module:
        """The root, or the model itself where none is known."""
        root = self.root() if self.root is not None else None
        return model if root is None else root


@dataclass
class AdapterSpec:
    """The method, arguments, seed and dropout of an adapter, from which it can be made again."""

    method: Any
    arguments: dict[str, Any]
    seed: int
    dropout: float
    trained: tuple[str, ...] = ()
    """Paths of the modules and parameters of the model that it trains whole."""


class StandIn(nn.Module):
    """Holds a layer's parameters and modules under their old names in the state dict, and adapters beside them.

    ``routes`` are the terms of each adapter, tuples with a ``weight``; ``terms`` those that act.
    """

    def __init__(self, layer: nn.Module, common: Common) -> None:
        super().__init__()
        self.__dict__["_layer"] = layer  # not a submodule: its contents are registered here, under its own names
        self._parameters, self._buffers = layer._parameters, layer._buffers
        self._version = layer._version
        self.original: dict[str, Tensor] | None = None
        self._modules.update(layer._modules)
        self.adapters = nn.ModuleDict()
        self.common = common
        self.specs: dict[str, AdapterSpec] = {}
        self.routes: dict[str, tuple[Any, ...]] = {}
        self.terms: tuple[Any, ...] = ()

    @property
    def layer(self) -> nn.Module:
        """The layer as it was before."""
        return self.__dict__["_layer"]

    @property
    def mark(self) -> tuple[Any, ...]:
        """A value that changes where other adapters act, or with other weights, though no tensor does."""
        acting = [(id(t.adapter), None if t.weight is None else float(t.weight)) for t in self.terms]
        return self.original is not None, self.common.routings.current is not None, *acting

    @property
    def reason_not_to_save(self) -> str:
        """The sentence with which ``polyad.save`` refuses a model that holds this layer."""
        state, first = ("merged into", "call unmerge() and ") if self.original is not None else ("attached to", "")
        return (
            f"has adapters {state} it, which belong into a folder of their own: {first}detach them after "
            "Adapters.save(name, folder), or put them into the weights by merge(keep=False)"
        )

    @property
    def reason_not_to_compress(self) -> str:
        """The sentence with which a selection of layers to compress refuses this one."""
        return (
            "has adapters on it: put them into the weights by merge(keep=False), or detach them, compress and attach "
            "new ones; a selection of other layers is compressed beside them"
        )

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        # The layer's own, which may save more than tensors, or less.
        self.layer._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        if self.original is not None and any(prefix + name in state_dict for name in self._parameters):
            error_msgs.append(f"adapters are merged into {prefix[:-1]}; call unmerge() before you load other weights")
            return
        load, surplus = self.layer._load_from_state_dict, list[str]()
        load(state_dict, prefix, local_metadata, strict, missing_keys, surplus, error_msgs)
        beside = tuple(f"{prefix}{name}." for name in self._modules if name not in self.layer._modules)
        unexpected_keys += [key for key in surplus if not key.startswith(beside)]  # adapters look at their own

    def hold(self, key: str, term: Any, spec: AdapterSpec) -> None:
        """Hold an adapter's term; ``activate`` lets it act. One name may have several, under keys of their own."""
        name = key.partition("[")[0]
        term.adapter.train(self.training)
        self.adapters[key], self.specs[name] = term.adapter, spec
        self.routes[name] = (*self.routes.get(name, ()), term)

    def remove(self, name: str) -> None:
        """Take an adapter out."""
        for key in [key for key in self.adapters if key.partition("[")[0] == name]:
            del self.adapters[key]
        del self.specs[name], self.routes[name]

    def updates(self, name: str) -> Iterator[tuple[str, LowRank | Tensor]]:
        """The change of each weight here by an adapter, its scale included, as a matrix (out, the rest) or one for
        each expert, after the suffix of that weight's site: its name less the layer's path."""
        raise NotImplementedError

    def merge(self, changed: Mapping[str, Tensor], *, keep: bool = True) -> None:
        """Put changed weights into the layer's parameters; with ``keep`` the originals stay beside them."""
        before: dict[str, Tensor] = {}
        for name, tensor in changed.items():
            parameter = self._parameters[name]
            assert parameter is not None
            before[name] = exchange(parameter, tensor.detach().contiguous())
        self.original = before if keep else None

    def unmerge(self) -> None:
        """Put the originals back, bit by bit; does nothing where nothing is merged."""
        for name, tensor in (self.original or {}).items():
            parameter = self._parameters[name]
            assert parameter is not None
            exchange(parameter, tensor)
        self.original = None

    def activate(self, weights: Mapping[str, Tensor | None]) -> None:
        """Let these adapters act, with these weights, and no others."""
        terms: tuple[Any, ...] = ()
        for name, weight in weights.items():
            more = self.routes.get(name, ())
            terms += more if weight is None else tuple([term._replace(weight=weight) for term in more])
        self.__dict__["terms"] = terms  # past torch's __setattr__: switching a thousand layers should take no time

    def train(self, mode: bool = True) -> Self:
        self.layer.training = mode
        return super().train(mode)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_layer"], name)  # in_features and the like


def skips_layer_calls(parent: nn.Module) -> bool:
    """True for modules that read their layers' weights without calling them, unless those have hooks."""
    return isinstance(parent, nn.TransformerEncoderLayer)


def force_calls(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """A hook that does nothing; with it, such a module calls its layer."""


__all__ = ["AdapterSpec", "Common", "StandIn", "force_calls", "skips_layer_calls"]
