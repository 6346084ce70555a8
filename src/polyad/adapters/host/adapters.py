"""The host of adapters: it finds layers, keeps names, activates, merges and takes out again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polyad import _check
from polyad.adapters.adapter import Adapter, Bank
from polyad.adapters.host import save as saving
from polyad.adapters.host import schedule as training
from polyad.adapters.host.adapted import Adapted
from polyad.adapters.host.build import Method, view
from polyad.adapters.host.experts import AdaptedExperts
from polyad.adapters.host.merge import owners, refuse_unmergeable
from polyad.adapters.host.plan import Planned, plan
from polyad.adapters.host.stand_in import Common, read_past, watch
from polyad.models.surgery import Which

SEQUENCES = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
BANK = "adapter_bank_"
"""What the module is called, with the adapter's name, that holds what its layers share."""


@dataclass(frozen=True)
class Match:
    """A weight that an adapter would change, and how many numbers would be trained for it."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int


class Adapters:
    """The adapters of one model, by name. Attaching freezes the model; detaching the last restores it exactly.

    >>> import torch
    >>> from polyad.adapters import LoRA
    >>> model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    >>> adapters = Adapters(model)
    >>> adapters.attach("mine", "*", LoRA, rank={"0": 2, "*": 1})
    ['0', '2']
    >>> sorted(adapters.state_dict("mine")), "0.weight" in model.state_dict()
    (['0.A', '0.B', '2.A', '2.B'], True)
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._common, self._layers, self._seen = Common(), dict[str, Adapted | AdaptedExperts](), -1

    @property
    def common(self) -> Common:
        """What all adapted layers of the model share, whichever host attached them."""
        self._look()
        return self._common

    @property
    def _held(self) -> dict[str, Adapted | AdaptedExperts]:
        self._look()
        return self._layers

    def _look(self) -> None:
        """Find the adapted layers again where another host may have changed them."""
        if self._layers and self._seen == self._common.changes:
            return
        self._layers = {p: m for p, m in self.model.named_modules() if isinstance(m, Adapted | AdaptedExperts)}
        own = next(iter(self._layers.values()), None)
        self._common = self._common if own is None else own.common
        self._seen = self._common.changes

    # Attaching -----------------------------------------------------------------------------------------------

    def attach(self, name: str, which: Which, method: Method, *, dropout: float = 0.0, **how: Any) -> list[str]:
        """Add an adapter to each layer chosen, let it act, and return the layers' names. All or nothing.

        ``how`` holds what ``plan`` takes (``of``, ``parts``, ``tied``, ``seed``, ``loss``, ``stats``) and the
        method's own arguments, each of which may be {pattern: value}. ``dropout`` is the share of a layer's inputs
        that the adapter does not see in training. Adapters are float32, or float64 on such a base.
        """
        self.refuse_name(name)
        planned = plan(self.model, which, method, dropout=dropout, **how)
        self.place(name, planned)
        return [site.name for site, _ in planned.adapters]

    def preview(self, which: Which, method: Method, **how: Any) -> list[Match]:
        """What ``attach`` would change, without doing it. What layers share is counted at the first of them."""
        planned = plan(self.model, which, method, begin=False, **how)
        shared = sum(p.numel() for p in planned.bank.parameters())
        counts = [sum(p.numel() for p in a.parameters() if p.requires_grad) for _, a in planned.adapters]
        counts[0] += shared
        sites = [site for site, _ in planned.adapters]
        return [Match(s.name, s.kind, s.shape, n) for s, n in zip(sites, counts, strict=True)]

    def place(self, name: str, planned: Planned) -> None:
        """Swap the layers in; nothing here fails."""
        common, held = self.common, self._held
        if not held:
            common.trainable.update({n: p.requires_grad for n, p in self.model.named_parameters()})
            self.model.requires_grad_(False)
        bank, made = planned.bank, planned.made
        if len(bank._parameters) or len(bank._buffers):
            common.banks[name] = bank.to(self._device())
        for site, adapter in planned.adapters:
            layer = held.get(site.path, site.module)
            if not isinstance(layer, Adapted | AdaptedExperts):
                kind = AdaptedExperts if site.kind == "experts" else Adapted
                adapted = kind(layer, common)
                adapted.training = layer.training
                self._swap(site.path, adapted)
                held[site.path] = layer = adapted
            if isinstance(layer, AdaptedExperts):
                assert site.parameter is not None
                layer.add(name, site.parameter, adapter, made)
            else:
                layer.add(name, adapter, view(site), made)
        common.names.append(name)
        if name in common.banks:
            # A sequence runs or counts its children, so its first layer with this adapter holds the bank; else the
            # model does, which is what sharded training needs.
            home = self._named_layers(name)[0] if isinstance(self.model, SEQUENCES) else self.model
            home.add_module(BANK + name, bank)
            common.homes[name] = home
        self._changed()
        self.activate({**common.active, name: None})

    def _swap(self, path: str, module: nn.Module) -> None:
        owner, _, leaf = path.rpartition(".")
        parent = self.model.get_submodule(owner)
        parent._modules[leaf] = module
        if isinstance(module, Adapted) and read_past(parent):
            module.register_forward_pre_hook(watch)

    def _changed(self) -> None:
        """Let other hosts of the model look again; this one knows."""
        self._common.changes += 1
        self._seen = self._common.changes

    def _device(self) -> torch.device:
        tensors = (*self.model.parameters(), *self.model.buffers())
        return next((t.device for t in tensors), torch.device("cpu"))

    def detach(self, name: str) -> None:
        """Take these adapters out; a layer that loses its last one is the module that it was."""
        named, common, held = self._named(name), self.common, self._held
        self.unmerge()
        for path, layer in named.items():
            layer.remove(name)
            if not layer.adapters:
                self._swap(path, layer.layer)
                del held[path]
        if name in common.banks:
            del common.banks[name]
            delattr(common.homes.pop(name), BANK + name)
        common.names.remove(name)
        self._changed()
        self.activate({n: w for n, w in common.active.items() if n != name})
        if not held:
            for path, parameter in self.model.named_parameters():
                parameter.requires_grad_(common.trainable.pop(path, parameter.requires_grad))

    # Which act -----------------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """The adapters attached, in the order in which they came."""
        return list(self.common.names)

    @property
    def active(self) -> dict[str, float]:
        """The weight of every adapter that acts."""
        return {name: 1.0 if w is None else float(w) for name, w in self.common.active.items()}

    def activate(self, which: str | Sequence[str] | Mapping[str, float | Tensor | None]) -> None:
        """Let these adapters act and no others: a name, several, or weights by name; ``[]`` leaves the base."""
        self._refuse_merged("activate")
        names = [which] if isinstance(which, str) else list(which)
        for name in names:
            self._known(name)
        if len(set(names)) < len(names):
            raise ValueError(f"{names} names an adapter twice; give it a weight instead: {{{names[0]!r}: 2.0}}")
        given = which if isinstance(which, Mapping) else dict.fromkeys(names)
        weights = {name: _weight(name, given[name]) for name in names}
        self.common.active = weights
        for layer in self._held.values():
            layer.activate(weights)

    @contextmanager
    def routed(self, names: Sequence[str | None]) -> Iterator[None]:
        """Within it, row i of every batch passes through the adapter ``names[i]`` alone, or through none for None."""
        self._refuse_merged("route rows")
        for name in {name for name in names if name is not None}:
            self._known(name)
        device = self._device()
        rows: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            if name is not None:
                rows.setdefault(name, []).append(i)
        common = self.common
        before = common.rows, common.batch
        common.rows = {name: torch.tensor(index, device=device) for name, index in rows.items()}
        common.batch = len(names)
        try:
            yield
        finally:
            common.rows, common.batch = before

    # Merging ---------------------------------------------------------------------------------------------------

    @property
    def merged(self) -> bool:
        """Whether the active adapters are in the weights now."""
        return any(layer.original is not None for layer in self._held.values())

    def merge(self, *, keep: bool = True) -> None:
        """Put the active updates into the weights, so that the model costs what it did. All or nothing.

        The sum is rounded once to the weight's dtype. With ``keep`` the originals stay in memory and ``unmerge``
        restores every bit; without, all adapters are taken out and the weights stay changed.
        """
        self._refuse_merged("merge")
        if self.common.rows is not None:
            raise ValueError("rows take adapters of their own within routed(); leave it before you merge")
        held = owners(self.model, self.common.banks.values())
        changed: dict[str, Any] = {}
        for path, layer in self._held.items():
            if any(name in self.common.active for name in layer.made):
                refuse_unmergeable(path, layer, held)
                changed[path] = layer.changed()
                for tensor in changed[path].values() if isinstance(changed[path], dict) else [changed[path]]:
                    _check.finite(f"the changed weight of {path}", tensor)
        layers = self._held
        for path, weight in changed.items():
            layers[path].merge(weight, keep=keep)
        for name in [] if keep else self.names:
            self.detach(name)

    def unmerge(self) -> None:
        """Restore every weight that was merged, exactly."""
        for layer in self._held.values():
            layer.unmerge()

    # Training --------------------------------------------------------------------------------------------------

    def of(self, name: str) -> dict[str, Adapter]:
        """The adapters of a name, by the names of their layers."""
        found: dict[str, Adapter] = {}
        for path, layer in self._named(name).items():
            for key, adapter in layer.adapters.items():
                own, bracket, rest = key.partition("[")
                if own == name and isinstance(adapter, Adapter):
                    part = "." + rest.removesuffix("]") if isinstance(layer, AdaptedExperts) else bracket + rest
                    found[path + part] = adapter
        return found

    def bank(self, name: str) -> Bank | None:
        """What the layers of an adapter share, if they share anything."""
        return self.common.banks.get(name)

    def named_parameters(self, name: str) -> dict[str, nn.Parameter]:
        """Every parameter of an adapter, by its layer's name and its own; shared ones once, under ``bank``."""
        bank = self.bank(name)
        found = {} if bank is None else {f"bank.{key}": p for key, p in bank.named_parameters()}
        for site, adapter in self.of(name).items():
            found |= {f"{site}.{key}": p for key, p in adapter.named_parameters()}
        return found

    def parameters(self, name: str) -> Iterator[nn.Parameter]:
        """What an optimiser of this adapter trains."""
        return (p for p in self.named_parameters(name).values() if p.requires_grad)

    def groups(self, name: str, lr: float, rates: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
        """Groups for an optimiser: parameters whose name matches a pattern of ``rates`` get so many times ``lr``."""
        return training.groups(self.named_parameters(name), lr, rates or {})

    def freeze(self, name: str) -> None:
        """Stop training an adapter; it goes on acting."""
        training.trainable(self.named_parameters(name).values(), False)

    def thaw(self, name: str) -> None:
        """Train an adapter again."""
        training.trainable(self.named_parameters(name).values(), True)

    def before_step(self, step: int, total: int) -> None:
        """Tell every adapter that step ``step`` of ``total`` comes; counted from 0."""
        training.tell(self, "before_step", step, total)

    def after_backward(self, step: int, total: int) -> None:
        """Tell every adapter that the gradients are there."""
        training.tell(self, "after_backward", step, total)

    def after_step(self, step: int, total: int) -> None:
        """Tell every adapter that the optimiser has stepped."""
        training.tell(self, "after_step", step, total)

    def penalty(self) -> Tensor:
        """What the active adapters add to the loss; zero where none adds anything."""
        terms = [a.penalty() for name in self.common.active for a in self.of(name).values()]
        given = [term for term in terms if term is not None]
        return torch.stack(given).sum() if given else torch.zeros(())

    # Keeping ---------------------------------------------------------------------------------------------------

    def state_dict(self, name: str) -> dict[str, Tensor]:
        """The tensors of an adapter alone, by layer; shared ones once, under ``bank``."""
        bank = self.bank(name)
        found = {} if bank is None else {f"bank.{key}": t for key, t in bank.state_dict().items()}
        for site, adapter in self.of(name).items():
            found |= {f"{site}.{key}": t for key, t in adapter.state_dict().items()}
        return found

    def load_state_dict(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``; every tensor must be given in its shape and none may be left over."""
        own = self.state_dict(name)
        saving.check_fit(name, own, tensors)
        with torch.no_grad():
            for key, tensor in own.items():
                tensor.copy_(tensors[key])

    def save(self, name: str, folder: str | Path) -> Path:
        """Write an adapter to a new folder, whole or not at all: safetensors, and JSON that says how it is made."""
        return saving.save(self, name, Path(folder))

    def load(self, folder: str | Path, name: str | None = None) -> str:
        """Attach the adapter in a folder, under its own name or another, and return the name.

        A folder of another model is refused: its layers, their shapes or their numbers differ.
        """
        return saving.load(self, Path(folder), name)

    # Inside ----------------------------------------------------------------------------------------------------

    def layers(self) -> dict[str, Adapted | AdaptedExperts]:
        """Every layer with adapters on it, by path."""
        return dict(self._held)

    def _named(self, name: str) -> dict[str, Adapted | AdaptedExperts]:
        self._known(name)
        return {path: layer for path, layer in self._held.items() if name in layer.made}

    def _named_layers(self, name: str) -> list[Adapted | AdaptedExperts]:
        return [layer for layer in self._held.values() if name in layer.made]

    def _known(self, name: str) -> None:
        if name not in self.common.names:
            raise ValueError(f"no adapters are called {name!r}; there are {', '.join(self.names) or 'none'}")

    def refuse_name(self, name: str) -> None:
        """Refuse names that are taken or that torch cannot give a module, and any while adapters are merged."""
        self._refuse_merged("attach")
        if (
            not isinstance(name, str)
            or not name
            or set(name) & set(".[]")
            or hasattr(nn.ModuleDict(), name)
            or name == "bank"
        ):
            raise ValueError(
                f"name={name!r} cannot name a module: it is empty, has dots or brackets, or is torch's word for "
                "something of its own; use another, like 'mine'"
            )
        if name in self.names:
            raise ValueError(f"adapters called {name!r} are attached already; detach them or choose another name")

    def _refuse_merged(self, verb: str) -> None:
        if self.merged:
            raise ValueError(f"the adapters are merged; call unmerge() before you {verb}")


def _weight(name: str, weight: Any) -> Tensor | None:
    """How often an adapter counts, as a tensor without dimensions; None for once, which costs nothing."""
    if weight is None or (isinstance(weight, int | float) and weight == 1):
        return None
    if not isinstance(weight, Real | Tensor) or (isinstance(weight, Tensor) and weight.numel() != 1):
        raise TypeError(f"the weight of {name} is {weight!r}; give a number, such as {{{name!r}: 0.5}}")
    return _check.finite(f"the weight of {name}", torch.as_tensor(weight, dtype=torch.float64).reshape(()))
