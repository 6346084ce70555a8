"""An adapter as a folder: safetensors, and JSON that says how it is made and of which model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from polyad._card import card
from polyad._versions import NEWEST, read_version
from polyad.adapters.frozen.frozen import suffix
from polyad.adapters.host.build import entry, view
from polyad.adapters.host.plan import plan
from polyad.adapters.host.sites import KINDS, Site, addressed, offered, sites_of
from polyad.adapters.sharded import elsewhere, whole
from polyad.formats import Format
from polyad.models.folder import MANIFEST, sha256, written

if TYPE_CHECKING:
    from polyad.adapters.host.adapters import Adapters

WEIGHTS = "adapter.safetensors"
STATED: dict[str, type | tuple[type, ...]] = {
    "version": int, "name": str, "method": str, "arguments": dict, "seed": int, "dropout": (int, float),
    "sites": list, "base": dict, "sha256": dict,
}  # fmt: skip
"""What the JSON says of an adapter."""
SITE = {"name", "path", "kind", "shape", "part"}
"""What it says of every place."""
SAMPLE = 64
"""How many numbers of each weight are part of a model's fingerprint."""


def save(adapters: Adapters, name: str, target: Path) -> Path:
    """Write the adapter called ``name`` to a new folder; of shards, gathered in every process, the first writes."""
    sites = sites_of(adapters, name)
    made = adapters.layers()[sites[0].path].made[name]
    known = entry(made.method)
    if known is None:
        raise ValueError(
            f"{made.method} is not in the catalogue, so nothing could load it again; keep its state_dict"
        )
    own = adapters.state_dict(name)
    tensors = {key: whole(t).detach().contiguous() for key, t in own.items()}
    stated: dict[str, Any] = {
        "version": NEWEST["adapter"],
        "kind": "adapter",
        "name": name,
        "method": known.name,
        "arguments": made.arguments,
        "seed": made.seed,
        "dropout": made.dropout,
        "sites": [{"name": s.name, "path": s.path, "kind": s.kind, "shape": s.shape, "part": s.part} for s in sites],
        "base": {site.name: fingerprint(adapters, site) for site in sites},
    }
    try:
        json.dumps(stated)
    except TypeError as error:
        raise ValueError(f"the arguments of {known.name} cannot be written as JSON: {error}") from None
    if elsewhere(own.values()):
        return target
    with written(target, expect=sum(t.nbytes for t in tensors.values())) as partial:
        save_file(tensors, partial / WEIGHTS)
        stated["sha256"] = {WEIGHTS: sha256(partial / WEIGHTS)}
        text = json.dumps(stated, indent=2, ensure_ascii=False)
        (partial / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return target


def load(adapters: Adapters, folder: Path, name: str | None) -> str:
    """Attach the adapter in ``folder`` and give it its numbers; nothing is attached where anything does not fit."""
    stated, tensors = _read(folder)
    name = str(stated["name"]) if name is None else name
    adapters.refuse_name(name)
    chosen = card(stated["method"])
    if chosen.kind != "adapter":
        raise ValueError(f"{folder / MANIFEST} states {chosen.name}, a method of kind {chosen.kind}; copy it again")
    check_model(adapters, folder, stated)
    which, parts = addressed(site["name"] for site in stated["sites"])
    planned = plan(
        adapters.model,
        which,
        chosen.function,
        of=KINDS,
        parts=parts,
        tied=True,
        dropout=stated["dropout"],
        seed=stated["seed"],
        begin=False,
        **stated["arguments"],
    )
    wanted = {s["name"] if s["part"] is None else s["path"] + suffix(tuple(s["part"])) for s in stated["sites"]}
    if {site.name for site, _ in planned.adapters} != wanted:
        raise ValueError(f"{folder / MANIFEST} names places by other names than they have; copy the folder again")
    for key in tensors:
        if key.startswith("bank.") and key.removeprefix("bank.") in planned.bank._buffers:
            planned.bank.hold(key.removeprefix("bank."), tensors[key])
    own = planned.state_dict()
    check_fit(name, own, tensors)
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(tensors[key])
    adapters.place(name, planned)
    return name


def check_fit(name: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Refuse tensors of other names or shapes than an adapter has."""
    missing, extra = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    if missing or extra:
        raise ValueError(
            f"the tensors do not fit the adapters {name!r}: {len(missing)} missing {missing[:3]}, {len(extra)} that "
            f"have no place {extra[:3]}; both must be none"
        )
    for key, tensor in own.items():
        if tensor.shape != given[key].shape:
            raise ValueError(f"{key} has shape {tuple(given[key].shape)} and needs {tuple(tensor.shape)}")
        if tensor.is_floating_point() != given[key].is_floating_point():
            raise ValueError(f"{key} holds {given[key].dtype} and needs {tensor.dtype}")


def check_model(adapters: Adapters, folder: Path, stated: Mapping[str, Any]) -> None:
    """Refuse a model whose layers, shapes or numbers differ from those that the adapter was saved with."""
    there = offered(adapters.model)
    for site in stated["sites"]:
        found = there.get(site["path"] if site["part"] is not None else site["name"])
        if found is None:
            raise ValueError(
                f"{folder} adapts {site['name']}, which this model does not have; it is of another model"
            )
        shape = site["shape"] if site["part"] is None else [found.shape[0], site["shape"][1]]
        if list(found.shape) != list(shape):
            raise ValueError(f"{site['name']} has shape {found.shape} here and {tuple(shape)} in {folder}")
        part = None if site["part"] is None else tuple(site["part"])
        print_ = fingerprint(adapters, Site(found.path, found.module, found.kind, found.shape, part, found.parameter))
        if print_ != stated["base"][site["name"]]:
            raise ValueError(
                f"the weight of {site['name']} is not the one that {folder} was trained on; load it onto that model"
            )


def fingerprint(adapters: Adapters, site: Site) -> str:
    """A hash of some of a weight's numbers in bfloat16, so that casts keep it."""
    layer = adapters.layers().get(site.path)
    original = None if layer is None else layer.original
    if isinstance(original, dict):
        original = original[site.parameter or ""]
    held = original if original is not None else _held(site)
    flat = whole(held).reshape(-1)
    some = flat[torch.linspace(0, len(flat) - 1, min(SAMPLE, len(flat)), dtype=torch.float64).long()]
    numbers = some.to(torch.bfloat16).float().cpu().tolist()
    return hashlib.sha256(repr(numbers).encode()).hexdigest()[:16]


def _held(site: Site) -> Tensor:
    if site.parameter is not None:
        return site.layer._parameters[site.parameter]  # pyright: ignore
    weight = getattr(site.layer, "weight", None)
    if isinstance(weight, Tensor):
        return weight.detach()
    held = view(site).held
    return next(iter(held.tensors().values())) if isinstance(held, Format) else held


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        stated = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ValueError(
            f"{folder} holds no adapter: {MANIFEST} cannot be read ({why}); give the folder that polyad adapt or "
            "Adapters.save wrote (of a comparison, one that lies in it)"
        ) from None
    if not isinstance(stated, dict) or stated.get("kind") != "adapter":
        raise ValueError(f"{folder / MANIFEST} describes no adapter; give the folder that Adapters.save wrote")
    read_version("adapter", folder / MANIFEST, stated.get("version"))
    wrong = [name for name, kind in STATED.items() if not isinstance(stated.get(name), kind)]
    if wrong == [] and not all(isinstance(s, dict) and s.keys() >= SITE for s in stated["sites"]):
        wrong = ["sites"]
    if wrong == [] and {s["name"] for s in stated["sites"]} != stated["base"].keys():
        wrong = ["sites", "base"]
    if wrong:
        raise ValueError(f"{folder / MANIFEST} does not state {wrong} as polyad does; copy it again")
    if not (folder / WEIGHTS).is_file() or sha256(folder / WEIGHTS) != stated["sha256"].get(WEIGHTS):
        raise ValueError(f"{folder / WEIGHTS} is missing or was changed since it was saved; copy the folder again")
    try:
        return stated, load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read ({error}); copy the folder again") from None
