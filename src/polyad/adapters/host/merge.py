"""Merging of active updates into the weights, and refusals of weights that cannot take them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from polyad import _check
from polyad.adapters.frozen.foreign_weight import is_foreign
from polyad.adapters.host.adapted import Adapted
from polyad.adapters.host.adapted_layers import AdaptedLayer, AdaptedLayers
from polyad.adapters.host.experts import AdaptedExperts
from polyad.adapters.sharded import reshard, sharded_parts, unsharded
from polyad.formats import Format


def merge(layers: AdaptedLayers, *, keep: bool = True) -> None:
    """Put the active updates into the weights, all or none; with ``keep`` the originals stay in memory."""
    layers.refuse_merged("merge")
    if not keep:
        refuse_sharded_layers(layers.by_path)
    if layers.common.routings.in_force:
        raise ValueError("within routed() each row has its own adapter; leave it before you merge")
    counts = owners(layers.model, layers.common.banks.values())
    weights: dict[str, dict[str, Tensor]] = {}
    touched = [
        path for path, layer in layers.by_path.items() if any(name in layers.common.active for name in layer.specs)
    ]
    for path in touched:
        refuse_unmergeable(path, layers.by_path[path], counts)
    with unsharded(layers.model):
        for path in touched:
            weights[path] = layers.by_path[path].updated_weights()
            for name, tensor in weights[path].items():
                _check.finite(f"the changed {name} of {path}", tensor)
    by_path = layers.by_path
    for path, changed in weights.items():
        by_path[path].merge(changed, keep=keep)


def unmerge(layers: AdaptedLayers) -> None:
    """Restore every weight that was merged, exactly."""
    if layers.have_merged:
        reshard(layers.model)
    for layer in layers.by_path.values():
        layer.unmerge()


def refuse_changed_biases(layers: Mapping[str, AdaptedLayer], name: str) -> None:
    """Refuse to state an adapter by its changes of weights where it changes biases too."""
    for path, layer in layers.items():
        terms = layer.routes.get(name, ()) if isinstance(layer, Adapted) else ()
        if any(term.adapter.bias_update(term.base) is not None for term in terms):
            raise ValueError(
                f"{name!r} changes the bias of {path} too, which a change of the weight does not hold; leave layers "
                "with a bias out, or merge the adapter and save the model"
            )


def owners(model: nn.Module, banks: Iterable[nn.Module]) -> Counter[int]:
    """The number of modules that hold each parameter of a model, by its id; adapters and banks are left out."""
    adapters = {id(inner) for bank in banks for inner in bank.modules()}
    for module in model.modules():
        if isinstance(module, Adapted | AdaptedExperts):
            adapters |= {id(inner) for inner in module.adapters.modules()}
    plain = [module for module in model.modules() if id(module) not in adapters]
    return Counter(id(p) for module in plain for p in module._parameters.values() if p is not None)


def refuse_unmergeable(path: str, layer: AdaptedLayer, counts: Mapping[int, int]) -> None:
    """Refuse to merge into formats, quantised weights and weights that other modules hold too."""
    if isinstance(layer, Adapted) and not layer.base.mergeable:
        weight = layer._parameters.get("weight")
        stored = layer.base.stored_weight if weight is None or not is_foreign(weight) else weight
        codes = isinstance(stored, Format) or type(stored) not in (Tensor, nn.Parameter)
        kind = type(stored).__name__ if codes else type(layer.layer).__name__
        raise ValueError(
            f"the weight of {path} is stored as {kind}, to which an update cannot be added; leave it unmerged, or "
            "put a dense layer in its place first"
        )
    for name, parameter in layer._parameters.items():
        if parameter is not None and counts[id(parameter)] > 1:
            raise ValueError(
                f"{name} of {path} is shared with another module, which merging would change too; leave the adapters "
                "unmerged, or detach the one on this layer"
            )


def refuse_sharded_layers(on: Mapping[str, AdaptedLayer]) -> None:
    """Refuse to take adapters out of layers that FSDP2 shards by themselves."""
    for path, layer in on.items():
        if layer in sharded_parts(layer):
            raise ValueError(
                f"{path} was given to fully_shard with its adapters on it, so that these cannot be taken out again; "
                "activate([]) leaves the base, and merge() puts the changes into the weights"
            )
