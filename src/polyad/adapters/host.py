"""The host of adapters: it finds modules, keeps names, merges and takes out again; an adapter owns its update."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from polyad.adapters.adapted import Adapted, Adapter
from polyad.layers import Linear
from polyad.models.surgery import Undo, Which, replace, select


class Adapters:
    """The adapters of one model, by name. Attaching freezes the model; detaching the last restores it exactly.

    >>> import torch
    >>> from functools import partial
    >>> from polyad.adapters import LoKr
    >>> model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    >>> adapters = Adapters(model)
    >>> adapters.attach("mine", "0", partial(LoKr, factor=2))
    ['0']
    >>> sorted(adapters.state_dict("mine")), "0.weight" in model.state_dict()
    (['0.factors.first', '0.factors.second'], True)
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._undo: dict[str, Undo] = {}
        self._trainable: dict[nn.Parameter, bool] = {}

    def attach(self, name: str, which: Which, make: Callable[[tuple[int, int]], Adapter]) -> list[str]:
        """Add an adapter, made from the weight's shape (out, in), to each linear layer chosen. Returns the paths."""
        if any(name in adapted.adapters for _, adapted in self._adapted()):
            raise ValueError(f"adapters called {name!r} are attached already; detach them or choose another name")
        self._refuse_merged("attach")
        found = select(self.model, which, of=(nn.Linear, Linear, Adapted))
        made = {path: make((int(m.out_features), int(m.in_features))) for path, m in found.items()}  # pyright: ignore
        for parameter in self.model.parameters():
            if not self._undo:
                self._trainable[parameter] = parameter.requires_grad
                parameter.requires_grad_(False)
        for path, module in found.items():
            device = next(module.parameters(), next(module.buffers(), None))
            if not isinstance(module, Adapted):
                module = Adapted(module)
                self._undo[path] = replace(self.model, {path: module})
            module.adapters[name] = made[path].to(device=None if device is None else device.device)
        return list(found)

    def detach(self, name: str) -> None:
        """Take these adapters out; a layer that loses its last one is the module that it was."""
        self.unmerge()
        for path, adapted in self._named(name):
            del adapted.adapters[name]
            if not adapted.adapters:
                self._undo.pop(path)()
        if not self._undo:
            for parameter, trainable in self._trainable.items():
                parameter.requires_grad_(trainable)
            self._trainable.clear()

    def merge(self) -> None:
        """Put all updates into the weights, so that the model costs what it did; ``unmerge`` is bit-exact."""
        self._refuse_merged("merge")
        adapted = list(self._adapted())
        owners = [id(p) for m in self.model.modules() for p in m._parameters.values() if p is not None]
        for path, layer in adapted:
            if not isinstance(layer.weight, Tensor):
                raise ValueError(f"the weight of {path} is a format; an update cannot be merged into it")
            if owners.count(id(layer.weight)) > 1:
                raise ValueError(
                    f"the weight of {path} is shared with another module, which merging would change too"
                )
        for _, layer in adapted:
            layer.merge()

    def unmerge(self) -> None:
        """Restore every weight that was merged, exactly."""
        for _, layer in self._adapted():
            layer.unmerge()

    def parameters(self, name: str) -> Iterator[nn.Parameter]:
        """What an optimiser of these adapters trains."""
        for _, adapted in self._named(name):
            yield from adapted.adapters[name].parameters()

    def state_dict(self, name: str) -> dict[str, Tensor]:
        """The tensors of these adapters alone, by the layer's path and their own names."""
        return {
            f"{path}.{key}": tensor
            for path, adapted in self._named(name)
            for key, tensor in adapted.adapters[name].state_dict().items()
        }

    def load_state_dict(self, name: str, tensors: dict[str, Tensor]) -> None:
        """The inverse of ``state_dict``; every tensor must be given and none may be left over."""
        expected = self.state_dict(name).keys()
        if expected != tensors.keys():
            differ = sorted(expected ^ tensors.keys())
            raise ValueError(f"the tensors do not fit the adapters {name!r}; in only one of the two: {differ[:4]}")
        for path, adapted in self._named(name):
            own = {k.removeprefix(path + "."): t for k, t in tensors.items() if k.startswith(path + ".")}
            inner = adapted.adapters[name]
            inner.load_state_dict({k: own[k] for k in inner.state_dict()})

    def _adapted(self) -> Iterator[tuple[str, Adapted]]:
        for path in self._undo:
            module = self.model.get_submodule(path)
            assert isinstance(module, Adapted)
            yield path, module

    def _named(self, name: str) -> list[tuple[str, Adapted]]:
        found = [(path, adapted) for path, adapted in self._adapted() if name in adapted.adapters]
        if not found:
            known = sorted({name for _, adapted in self._adapted() for name in adapted.adapters})
            raise ValueError(f"no adapters are called {name!r}; there are {', '.join(known) or 'none'}")
        return found

    def _refuse_merged(self, verb: str) -> None:
        if any(adapted.merged for _, adapted in self._adapted()):
            raise ValueError(f"the adapters are merged; call unmerge() before {verb}")
