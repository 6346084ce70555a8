"""The adapted layers of a model, by path, and what they share."""

from __future__ import annotations

import torch
from torch import nn

from polyad._types import check_type
from polyad.adapters.adapter import Adapter
from polyad.adapters.host.adapted import Adapted
from polyad.adapters.host.experts import AdaptedExperts
from polyad.adapters.host.stand_in import Common, force_calls, skips_layer_calls
from polyad.models.wrappers import plain_path, unwrap

AdaptedLayer = Adapted | AdaptedExperts


class AdaptedLayers:
    """The adapted layers of a model, looked up again where another host has changed them."""

    def __init__(self, model: nn.Module) -> None:
        check_type("model", model, nn.Module, "give the model itself, as polyad.load returns it")
        self.model = unwrap(model)
        self._common, self._layers, self._changes = Common(), dict[str, AdaptedLayer](), -1

    @property
    def common(self) -> Common:
        """The state that all adapted layers of the model share, whichever host attached them."""
        self._refresh()
        return self._common

    @property
    def by_path(self) -> dict[str, AdaptedLayer]:
        """Every layer with adapters on it."""
        self._refresh()
        return self._layers

    def _refresh(self) -> None:
        if self._layers and self._changes == self._common.changes:
            return
        modules = self.model.named_modules()
        self._layers = {plain_path(p): m for p, m in modules if isinstance(m, Adapted | AdaptedExperts)}
        first = next(iter(self._layers.values()), None)
        others = [p for p, layer in self._layers.items() if first is not None and layer.common is not first.common]
        if others:
            raise ValueError(
                f"{next(iter(self._layers))} and {others[0]} have adapters that were attached to parts of the model, "
                "each by a host of its own; detach one of them, and attach it to the whole model"
            )
        self._common = self._common if first is None else first.common
        self._changes = self._common.changes

    def note_change(self) -> None:
        """Let other hosts of the model look up the layers again; this one knows."""
        self._common.changes += 1
        self._changes = self._common.changes

    def swap(self, path: str, module: nn.Module) -> None:
        """Put a module in the place of the one at a path."""
        owner, _, leaf = path.rpartition(".")
        parent = unwrap(self.model.get_submodule(owner))
        parent._modules[leaf] = module
        if isinstance(module, Adapted) and skips_layer_calls(parent):
            module.register_forward_pre_hook(force_calls)

    def device(self) -> torch.device:
        """The device of the model's first tensor."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        return next((t.device for t in tensors), torch.device("cpu"))

    def layers_of(self, name: str) -> dict[str, AdaptedLayer]:
        """The layers that an adapter of this name stands on, by path."""
        self.refuse_unknown(name)
        return {path: layer for path, layer in self.by_path.items() if name in layer.specs}

    def adapters_of(self, name: str) -> dict[str, Adapter]:
        """The adapters of a name, by the names of their sites."""
        adapters: dict[str, Adapter] = {}
        for path, layer in self.layers_of(name).items():
            for key, adapter in layer.adapters.items():
                owner, bracket, rest = key.partition("[")
                if owner == name and isinstance(adapter, Adapter):
                    part = "." + rest.removesuffix("]") if isinstance(layer, AdaptedExperts) else bracket + rest
                    adapters[path + part] = adapter
        return adapters

    @property
    def have_merged(self) -> bool:
        """True while updates are merged into the weights."""
        return any(layer.original is not None for layer in self.by_path.values())

    def refuse_merged(self, verb: str) -> None:
        """Refuse to do what ``verb`` says while adapters are merged."""
        if self.have_merged:
            raise ValueError(f"the adapters are merged; call unmerge() before you {verb}")

    def refuse_unknown(self, name: str) -> None:
        """Refuse names under which nothing is attached."""
        names = self.common.names
        if name not in names:
            raise ValueError(f"no adapters are called {name!r}; there are {', '.join(names) or 'none'}")

    def refuse_name(self, name: str) -> None:
        """Refuse names that are taken or that torch cannot give a module, and any while adapters are merged."""
        self.refuse_merged("attach")
        forbidden = not isinstance(name, str) or not name or set(name) & set(".[]") or name == "bank"
        if forbidden or hasattr(nn.ModuleDict(), name):
            raise ValueError(
                f"name={name!r} cannot name a module: it is empty, has dots or brackets, or is an attribute of "
                "torch's modules; use another, like 'mine'"
            )
        if name in self.common.names:
            raise ValueError(f"adapters called {name!r} are attached already; detach them or choose another name")
