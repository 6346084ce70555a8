"""Write a quantised model as a folder that transformers loads without polyad, and compare both."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polyad.export.result import ExportResult
from polyad.export.transformers.compare import compare_folder
from polyad.export.transformers.packed import (
    LEAST_GROUP,
    Scheme,
    config_groups,
    join_schemes,
    obstacle,
    packed_tensors,
    scheme_of,
)
from polyad.interop.compressed_tensors import require_package
from polyad.layers import Embedding, Linear
from polyad.models import manifest, shards
from polyad.models.companions import write_companions
from polyad.models.folder import staged_folder
from polyad.models.manifest import refuse_unsaveable, weights_before_division

FUSED = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("gate_proj", "up_proj"), ("w1", "w3"))
"""Layers side by side that servers read as one, and which therefore share a scheme."""


def write_transformers(
    model: nn.Module, out: Path, *, max_shard_size: int = shards.MAX_SHARD, unchecked: bool = False
) -> ExportResult:
    """Write a model to a new folder in the layout pack-quantized of compressed-tensors, number for number.

    Every layer that is not plain must be a matrix of codes with whole zero points. The floats keep their dtype,
    unless scales are finer: then all are in the scales' dtype.
    """
    refuse_unsaveable(model)
    layers = _layers(model, _plain(model))
    require_package()
    schemes = _schemes(layers)
    dtype = _dtype(model, [layer.weight().scale for layer in layers.values()])  # pyright: ignore
    tensors = _tensors(model, layers, schemes, dtype)
    shards.check_range(tensors, dtype)
    config: Any = copy.deepcopy(model.config)
    config.__dict__.pop("quantization_config", None)
    config.architectures, config.dtype = [type(model).__name__], dtype
    stated = config.to_dict() | ({"quantization_config": config_groups(schemes)} if schemes else {})
    expect = sum(shards.written_bytes(t, dtype) for t in tensors.values())
    checked: dict[str, Any] = {}
    with staged_folder(out, expect=expect) as partial:
        files = shards.write_tensors(tensors, partial, dtype=dtype, limit=max_shard_size)
        (partial / "config.json").write_text(json.dumps(stated, indent=2, default=str) + "\n", encoding="utf-8")
        write_companions(model, partial)
        if not unchecked:
            checked = compare_folder(model, partial, dtype)
    size = sum((out / name).stat().st_size for name in files)
    return ExportResult(out, "transformers", size, checked, tuple(_notes(model, layers, schemes, dtype)))


def _plain(model: nn.Module) -> nn.Module:
    """The model that the configuration describes, on the meta device, which is what transformers will make."""
    import transformers

    kind: Any = getattr(transformers, type(model).__name__, None)
    if kind is not type(model) or not hasattr(model, "config"):
        raise ValueError(
            f"{type(model).__name__} is no model of transformers, which could not load it; save it with polyad.save"
        )
    config: Any = copy.deepcopy(model.config)
    config.__dict__.pop("quantization_config", None)
    config.architectures = [type(model).__name__]
    plain = manifest.skeleton(config)
    if not manifest.has_ties_of(model, plain):
        raise ValueError(
            f"weights of this {type(model).__name__} are tied in another way than its configuration says, and "
            "transformers would tie them its own way; save it with polyad.save"
        )
    return plain


def _layers(model: nn.Module, plain: nn.Module) -> dict[str, Linear | Embedding]:
    """The layers to pack by path; the model is refused, with every layer's reason, where one has no place."""
    layers, reasons = dict[str, Linear | Embedding](), dict[str, str]()
    shared = {name.rpartition(".weight.")[0] for pair in manifest.split_ties(model)[1].items() for name in pair}
    for path in manifest.differences(model, plain):
        module, place = model.get_submodule(path), type(plain.get_submodule(path))
        if not isinstance(module, Linear | Embedding):
            reasons[path] = f"it is a {type(module).__name__} that its configuration does not describe"
        elif place not in (nn.Linear, nn.Embedding):
            reasons[path] = (
                f"transformers has a {place.__name__} there, and packs codes for Linear and Embedding alone"
            )
        elif path in shared:
            reasons[path] = "its codes are shared with another layer"
        else:
            said = obstacle(module.weight())
            if said is None:
                layers[path] = module
            else:
                reasons[path] = said
    if reasons:
        kinds = dict.fromkeys(reasons.values())
        named = "; ".join(f"{_some([p for p, r in reasons.items() if r == kind])}: {kind}" for kind in kinds)
        raise ValueError(
            f"transformers has no quantiser that could hold {named}. Save the model with polyad.save, and load it "
            "with transformers after import polyad; nothing was written"
        )
    return layers


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    return ", ".join(paths[:3]) + more


def _schemes(layers: dict[str, Linear | Embedding]) -> dict[str, Scheme]:
    """The scheme of each layer: with zero points one for all, otherwise one for all layers that a reader fuses."""
    columns = {path: layer.weight.shape[1] for path, layer in layers.items()}
    schemes = {path: scheme_of(layer.weight()) for path, layer in layers.items()}  # pyright: ignore
    if all(scheme.symmetric for scheme in schemes.values()):
        groups = [group for path in schemes for group in _siblings(path, schemes, columns)]
    else:
        groups = [list(schemes)]
    for paths in groups:
        scheme = join_schemes({p: schemes[p] for p in paths}, columns)
        if scheme.group is not None and scheme.group < LEAST_GROUP:
            raise ValueError(
                f"{_some(paths)} must share one group size where transformers reads them, and theirs have none in "
                f"common of {LEAST_GROUP} or more; quantise them with one group, such as 32"
            )
        schemes |= dict.fromkeys(paths, scheme)
    return schemes


def _siblings(path: str, schemes: dict[str, Scheme], columns: dict[str, int]) -> Iterable[list[str]]:
    parent, _, name = path.rpartition(".")
    for names in FUSED:
        paths = [p for p in (f"{parent}.{n}" for n in names) if p in schemes] if name in names else []
        if len({columns[p] for p in paths}) == 1:
            yield paths


def _dtype(model: nn.Module, scales: list[Tensor]) -> torch.dtype:
    """The model's dtype where it holds every scale exactly, otherwise float32."""
    number = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    number = number if number in shards.FLOATS[:3] else torch.float32
    exact = all(torch.equal(scale.to(number).to(torch.float32), scale.to(torch.float32)) for scale in scales)
    return number if exact else torch.float32


def _tensors(
    model: nn.Module, layers: dict[str, Linear | Embedding], schemes: dict[str, Scheme], dtype: torch.dtype
) -> dict[str, Tensor]:
    tensors = weights_before_division(model, manifest.split_ties(model)[0])
    for path, layer in layers.items():
        tensors = {name: t for name, t in tensors.items() if not name.startswith(f"{path}.weight.")}
        weight: Any = layer.weight()
        tensors |= {f"{path}.{name}": t for name, t in packed_tensors(weight, schemes[path], dtype).items()}
    return tensors


def _notes(
    model: nn.Module, layers: dict[str, Linear | Embedding], schemes: dict[str, Scheme], dtype: torch.dtype
) -> Iterable[str]:
    counts: dict[Scheme, int] = {}
    for scheme in schemes.values():
        counts[scheme] = counts.get(scheme, 0) + 1
    for scheme, count in counts.items():
        group = "a scale a row" if scheme.group is None else f"groups of {scheme.group}"
        yield f"{count} layers of {scheme.bits} bits, {group}{'' if scheme.symmetric else ', with zero points'}"
    wider = [path for path, layer in layers.items() if schemes[path].bits > layer.weight().bits]  # pyright: ignore
    if wider:
        yield f"{len(wider)} of them have fewer bits in the model, and are held exactly"
    if dtype != next(p.dtype for p in model.parameters() if p.is_floating_point()):
        yield f"floats are {dtype}, since scales are finer than the model's own dtype"
