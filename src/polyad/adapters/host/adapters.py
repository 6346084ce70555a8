"""The host of adapters: it finds layers, keeps names, activates, merges and takes out again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from polyad.adapters.adapter import Adapter, Bank
from polyad.adapters.host import activate, attach, merge, plan, save, schedule
from polyad.adapters.host.adapted_layers import AdaptedLayer, AdaptedLayers
from polyad.adapters.host.build import Method
from polyad.adapters.host.describe import describe_adapters
from polyad.adapters.host.sites import Site, sites_named
from polyad.adapters.host.stand_in import Common
from polyad.adapters.host.state import fill, saved_tensors, tensors_by_name
from polyad.adapters.host.stated import read_folder
from polyad.adapters.host.trained import keep_in_model, places_of, without_gradients
from polyad.models.surgery import Which
from polyad.models.wrappers import unwrap


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
        self._adapted, self.model = AdaptedLayers(model), unwrap(model)

    def __repr__(self) -> str:
        return describe_adapters(self.model, {name: self.named_parameters(name) for name in self.names}, self.active)

    @property
    def common(self) -> Common:
        """The state that all adapted layers of the model share, whichever host attached them."""
        return self._adapted.common

    def attach(self, name: str, which: Which, method: Method | str, *, dropout: float = 0.0, **how: Any) -> list[str]:
        """Add an adapter to each layer chosen, let it act, and return the layers' names. All or nothing.

        ``how`` holds what ``plan`` takes (``of``, ``parts``, ``tied``, ``seed``, ``loss``, ``stats``, ``trained``)
        and the method's own arguments, each of which may be {pattern: value}. ``trained`` names modules of the model
        that are trained whole and saved with the adapter, such as a new head. ``dropout`` is the share of a layer's
        inputs that the adapter does not see in training. Adapters are float32, or float64 on such a base.
        """
        self.refuse_name(name)
        planned = plan.plan_adapters(self.model, which, method, dropout=dropout, **how)
        self.place(name, planned)
        return [site.name for site, _ in planned.adapters]

    def preview(self, which: Which, method: Method | str, **how: Any) -> list[plan.Match]:
        """List the weights that ``attach`` would change. What layers share is counted at the first of them."""
        return plan.plan_adapters(self.model, which, method, begin=False, **how).matches()

    def place(self, name: str, planned: plan.AdapterPlan) -> None:
        """Attach planned adapters under a name that ``refuse_name`` lets pass."""
        attach.attach_plan(self._adapted, name, planned)

    def refuse_name(self, name: str) -> None:
        """Refuse names that are taken or that torch cannot give a module; and any while merged."""
        self._adapted.refuse_name(name)

    def detach(self, name: str) -> None:
        """Take these adapters out; a layer that loses its last one is the module that it was."""
        attach.detach(self._adapted, name)

    @property
    def names(self) -> list[str]:
        """The adapters attached, in the order in which they came."""
        return list(self.common.names)

    @property
    def active(self) -> dict[str, float]:
        """The weight of every adapter that acts."""
        return {name: 1.0 if w is None else float(w) for name, w in self.common.active.items()}

    def activate(self, which: activate.Active) -> None:
        """Let these act and no others, their changes added up: names, or weights by name; ``[]`` leaves the base."""
        activate.activate(self._adapted, which)

    def routed(self, names: Sequence[str | None]) -> AbstractContextManager[None]:
        """Within it, row i of every batch passes through the adapter ``names[i]`` alone, or through none for None."""
        return activate.route_rows(self._adapted, names)

    @property
    def merged(self) -> bool:
        """True while the active adapters are in the weights."""
        return self._adapted.have_merged

    def merge(self, *, keep: bool = True) -> None:
        """Put the active updates into the weights, so that the model costs what it did. All or nothing.

        The sum is rounded once to the weight's dtype. With ``keep`` the originals stay in memory and ``unmerge``
        restores every bit; without, all adapters are taken out and the weights stay changed.
        """
        merge.merge(self._adapted, keep=keep)
        if not keep:
            keep_in_model(self.common.trained)
        for name in [] if keep else self.names:
            self.detach(name)

    def unmerge(self) -> None:
        """Restore every weight that was merged, exactly."""
        merge.unmerge(self._adapted)

    def layers(self) -> dict[str, AdaptedLayer]:
        """Every layer with adapters on it, by path."""
        return dict(self._adapted.by_path)

    def of(self, name: str) -> dict[str, Adapter]:
        """The adapters of a name, by the names of their layers."""
        return self._adapted.adapters_of(name)

    def sites(self, name: str) -> list[Site]:
        """The weights that the adapters of a name change."""
        return sites_named(self.model, self.of(name))

    def bank(self, name: str) -> Bank | None:
        """The tensors that the layers of an adapter share, if they share any."""
        return self.common.banks.get(name)

    def named_parameters(self, name: str) -> dict[str, nn.Parameter]:
        """Every parameter of an adapter, by its layer's name and its own; shared ones once under ``bank``, and those
        of modules that it trains whole under ``trained``."""
        parameters = tensors_by_name(self.bank(name), self.of(name).items(), nn.Module.named_parameters)
        return parameters | {key: t for key, t in self.trained(name).items() if isinstance(t, nn.Parameter)}

    def trained(self, name: str) -> dict[str, Tensor]:
        """The tensors of the model that an adapter trains whole, as it has them; they act while it does."""
        return places_of(self.common.trained.get(name, ()))

    def parameters(self, name: str) -> Iterator[nn.Parameter]:
        """The parameters of an adapter that an optimiser trains."""
        return (p for p in self.named_parameters(name).values() if p.requires_grad)

    def groups(self, name: str, lr: float, rates: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
        """Groups for an optimiser: parameters whose name matches a pattern of ``rates`` get so many times ``lr``."""
        return schedule.parameter_groups(self.named_parameters(name), lr, rates or {})

    def freeze(self, name: str) -> None:
        """Stop training an adapter; it goes on acting."""
        schedule.set_trainable(self.named_parameters(name).values(), False)

    def thaw(self, name: str) -> None:
        """Train an adapter again."""
        schedule.set_trainable(self.named_parameters(name).values(), True)

    def before_step(self, step: int, total: int) -> None:
        """Tell every active adapter that step ``step`` of ``total`` comes; counted from 0."""
        schedule.call_hooks(map(self.of, self.common.active), "before_step", step, total)

    def after_backward(self, step: int, total: int) -> None:
        """Tell every active adapter that there are gradients."""
        schedule.call_hooks(map(self.of, self.common.active), "after_backward", step, total)

    def after_step(self, step: int, total: int) -> None:
        """Tell every active adapter that the optimiser has stepped."""
        schedule.call_hooks(map(self.of, self.common.active), "after_step", step, total)

    def penalty(self) -> Tensor:
        """The sum of the active adapters' terms of the loss; zero where none has one."""
        return schedule.sum_penalties(map(self.of, self.common.active))

    def state_dict(self, name: str) -> dict[str, Tensor]:
        """The tensors of an adapter alone, by layer; shared ones once, under ``bank``."""
        tensors = tensors_by_name(self.bank(name), self.of(name).items(), saved_tensors)
        return tensors | without_gradients(self.trained(name))

    def load_state_dict(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of ``state_dict``; every tensor must be given in its shape and none may be left over."""
        fill(name, self.state_dict(name), tensors)

    def save(self, name: str, folder: str | Path) -> Path:
        """Write an adapter to a new folder, whole or not at all: safetensors, and JSON that says how it is made."""
        spec = next(iter(self._adapted.layers_of(name).values())).specs[name]
        return save.write_folder(Path(folder), name, spec, self.sites(name), self.state_dict(name), self.model)

    def load(self, folder: str | Path, name: str | None = None) -> str:
        """Attach the adapter in a folder, under its own name or another, and return the name.

        A folder of another model is refused: its layers, their shapes or their numbers differ.
        """
        stated, tensors = read_folder(Path(folder))
        self.refuse_name(name := str(stated["name"]) if name is None else name)
        self.place(name, save.plan_from_folder(self.model, Path(folder), name, stated, tensors))
        return name
