"""Attaching planned adapters to a model, and detaching them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

from torch import nn

from polyad.adapters.adapter import Adapter, Bank
from polyad.adapters.host.activate import activate
from polyad.adapters.host.adapted import Adapted
from polyad.adapters.host.adapted_layers import AdaptedLayer, AdaptedLayers
from polyad.adapters.host.build import frozen_weight
from polyad.adapters.host.choose_trained import warn_of_random
from polyad.adapters.host.experts import AdaptedExperts
from polyad.adapters.host.first_pass import FirstPass
from polyad.adapters.host.merge import refuse_sharded_layers, unmerge
from polyad.adapters.host.plan import AdapterPlan
from polyad.adapters.host.sites import Site
from polyad.adapters.host.trained import switch_places

SEQUENCES = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
BANK = "adapter_bank_"
"""The name, before the adapter's, of the module that holds what an adapter's layers share."""


def attach_plan(layers: AdaptedLayers, name: str, plan: AdapterPlan) -> None:
    """Put planned adapters on their layers and let them act; what fails on the way leaves the model as it was."""
    try:
        _put_on(layers, name, plan)
        activate(layers, {**layers.common.active, name: None})
    except Exception:
        layers.common.banks.pop(name, None)
        layers.common.trained.pop(name, None)
        home = layers.common.homes.pop(name, None)
        if home is not None:
            delattr(home, BANK + name)
        layers.common.names[:] = [other for other in layers.common.names if other != name]
        _take_off(layers, name, {site.path for site, _ in plan.adapters})
        _restore_training(layers)
        raise
    layers.note_change()
    warn_of_random(layers.model)
    if not plan.called:
        FirstPass(layers)


def _put_on(layers: AdaptedLayers, name: str, plan: AdapterPlan) -> None:
    """Put planned adapters on their layers, and the bank that they share on its home."""
    common = layers.common
    _freeze(layers)
    has_bank = bool(len(plan.bank._parameters) or len(plan.bank._buffers))
    if has_bank:
        common.banks[name] = plan.bank.to(layers.device())
    for site, adapter in plan.adapters:
        layer = _adapted_layer(layers, site)
        if isinstance(layer, AdaptedExperts):
            assert site.parameter is not None
            layer.add(name, site.parameter, adapter, plan.spec)
        else:
            layer.add(name, adapter, frozen_weight(site), plan.spec)
    common.names.append(name)
    if plan.trained:
        common.trained[name] = plan.trained
    if has_bank:
        # A sequence runs or counts its children, so its first layer with this adapter holds the bank; else the
        # model does, which is what sharded training needs.
        sequence = isinstance(layers.model, SEQUENCES)
        home = next(iter(layers.layers_of(name).values())) if sequence else layers.model
        home.add_module(BANK + name, plan.bank)
        common.homes[name] = home


def _freeze(layers: AdaptedLayers) -> None:
    """Freeze the model, and note what was trained; of a part that has adapters already this is known."""
    model, common = layers.model, layers.common
    root = common.root_of(model)
    if layers.by_path and any(part is model for part in root.modules()):
        return
    prefix = next((f"{path}." for path, part in model.named_modules() if path and part is root), "")
    flags = {prefix + path: flag for path, flag in common.trainable.items()}
    added = {id(p) for part in model.modules() if isinstance(part, Adapter | Bank) for p in part.parameters()}
    added |= {id(place.current) for places in common.trained.values() for place in places}
    base = {path: p for path, p in model.named_parameters() if id(p) not in added}
    common.trainable = {path: flags.get(path, p.requires_grad) for path, p in base.items()}
    common.root = weakref.ref(model)
    for parameter in base.values():
        parameter.requires_grad_(False)


def _adapted_layer(layers: AdaptedLayers, site: Site) -> AdaptedLayer:
    """The adapted layer at a site, put there if the layer has no adapters yet."""
    present = layers.by_path.get(site.path)
    if present is not None:
        return present
    kind = AdaptedExperts if site.kind == "experts" else Adapted
    adapted = kind(site.module, layers.common)
    adapted.training = site.module.training
    layers.by_path[site.path] = adapted
    layers.swap(site.path, adapted)
    return adapted


def detach(layers: AdaptedLayers, name: str) -> None:
    """Take the adapters of a name out; a layer that loses its last one is the module that it was."""
    on, common = layers.layers_of(name), layers.common
    refuse_sharded_layers(on)
    unmerge(layers)
    switch_places(common.trained, {n: w for n, w in common.active.items() if n != name})
    common.trained.pop(name, None)
    _take_off(layers, name, on)
    if name in common.banks:
        del common.banks[name]
        delattr(common.homes.pop(name), BANK + name)
    common.names.remove(name)
    layers.note_change()
    activate(layers, {n: w for n, w in common.active.items() if n != name})
    _restore_training(layers)


def _take_off(layers: AdaptedLayers, name: str, paths: Iterable[str]) -> None:
    """Take the adapters of a name off these layers; one that is left without any becomes the module that it was."""
    by_path = layers.by_path
    for path in paths:
        layer = by_path.get(path)
        if layer is not None and name in layer.specs:
            layer.remove(name)
        if layer is not None and not layer.adapters:
            layers.swap(path, layer.layer)
            del by_path[path]


def _restore_training(layers: AdaptedLayers) -> None:
    """Let the model's own parameters be trained as before, where no adapter is left."""
    common = layers.common
    if not common.names:
        for path, parameter in common.root_of(layers.model).named_parameters():
            parameter.requires_grad_(common.trainable.pop(path, parameter.requires_grad))
        common.root = None
