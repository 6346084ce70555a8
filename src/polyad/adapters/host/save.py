"""Adapters as folders: safetensors, and JSON that says how an adapter is made and of which model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from polyad._card import card
from polyad._model_card import keep_base_card, write_card
from polyad._sealed_json import write_json
from polyad._stated import in_words
from polyad._versions import NEWEST
from polyad.adapters.frozen.foreign_weight import NUMBERS, is_foreign, numbers_of
from polyad.adapters.frozen.frozen import suffix
from polyad.adapters.host.build import card_of, frozen_weight
from polyad.adapters.host.plan import AdapterPlan, plan_adapters
from polyad.adapters.host.sites import KINDS, Site, adaptable_sites, literal, patterns_for
from polyad.adapters.host.stand_in import AdapterSpec, StandIn
from polyad.adapters.host.state import fill
from polyad.adapters.host.stated import WEIGHTS, refuse_huge
from polyad.adapters.sharded import another_process_writes, whole
from polyad.formats import Format
from polyad.models.folder import MANIFEST, sha256, staged_folder
from polyad.models.source import origin

SAMPLE = 64
"""The count of numbers of each weight that a fingerprint reads."""


def write_folder(
    target: Path,
    name: str,
    spec: AdapterSpec,
    sites: Sequence[Site],
    tensors: Mapping[str, Tensor],
    model: nn.Module,
) -> Path:
    """Write an adapter to a new folder; shards are gathered in every process, and the first process writes."""
    listed = card_of(spec.method)
    if listed is None:
        raise ValueError(
            f"{spec.method} is not in the catalogue, so nothing could load it again; keep its state_dict"
        )
    numbers = {key: whole(t).detach().contiguous() for key, t in tensors.items()}
    stated: dict[str, Any] = {
        "version": NEWEST["adapter"] if spec.trained else 2,
        "kind": "adapter",
        "name": name,
        "model": origin(model).name if hasattr(model, "polyad_origin") else "",
        "method": listed.name,
        "arguments": spec.arguments,
        "seed": spec.seed,
        "dropout": spec.dropout,
        **({"trained": spec.trained} if spec.trained else {}),
        "sites": [{"name": s.name, "path": s.path, "kind": s.kind, "shape": s.shape, "part": s.part} for s in sites],
        "base": {site.name: base_fingerprint(site) for site in sites},
    }
    _refuse_unwritable(stated, listed.name)
    if another_process_writes(tensors.values()):
        return target
    with staged_folder(target, expect=sum(t.nbytes for t in numbers.values())) as unfinished:
        save_file(numbers, unfinished / WEIGHTS)
        stated["sha256"] = {WEIGHTS: sha256(unfinished / WEIGHTS)}
        write_json(unfinished / MANIFEST, stated)
        _write_card(unfinished, stated, model, target)
    return target


def _refuse_unwritable(stated: Mapping[str, Any], method: str) -> None:
    """Refuse arguments that JSON cannot hold."""
    try:
        json.dumps(stated)
    except TypeError as error:
        raise ValueError(
            f"the arguments of {method} cannot be written as JSON: {error}; attach it with plain numbers, text, "
            "lists and dictionaries"
        ) from None


def _write_card(folder: Path, stated: Mapping[str, Any], model: nn.Module, target: Path) -> None:
    keep_base_card(origin(model).beside, folder)
    write_card(folder, stated, name=target.absolute().name)


def plan_from_folder(
    model: nn.Module, folder: Path, name: str, stated: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> AdapterPlan:
    """Plan the adapter that ``read_folder`` read and give it its numbers; refuse whatever does not fit the model."""
    with in_words(f"the adapter that {folder} describes cannot be made", "copy the folder again"):
        return _plan(model, folder, name, stated, tensors)


def _plan(
    model: nn.Module, folder: Path, name: str, stated: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> AdapterPlan:
    chosen = card(stated["method"])
    if chosen.kind != "adapter":
        raise ValueError(f"{folder / MANIFEST} states {chosen.name}, a method of kind {chosen.kind}; copy it again")
    check_model(model, folder, stated)
    refuse_huge(folder, chosen.name, stated["arguments"], model, tensors)
    undivided = {site["name"] for site in stated["sites"] if site["part"] is None}
    which, parts = patterns_for((site["name"] for site in stated["sites"]), undivided)
    planned = plan_adapters(
        model,
        which,
        partial(chosen.function, **stated["arguments"]),
        of=KINDS,
        parts=parts,
        tied=True,
        dropout=stated["dropout"],
        seed=stated["seed"],
        begin=False,
        trained=[literal(path) for path in stated.get("trained", ())],
    )
    wanted = {s["name"] if s["part"] is None else s["path"] + suffix(tuple(s["part"])) for s in stated["sites"]}
    if {site.name for site, _ in planned.adapters} != wanted:
        raise ValueError(f"{folder / MANIFEST} names layers otherwise than their paths say; copy the folder again")
    for key in tensors:
        if key.startswith("bank.") and key.removeprefix("bank.") in planned.bank._buffers:
            planned.bank.hold(key.removeprefix("bank."), tensors[key])
    fill(name, planned.state_dict(), tensors)
    return planned


def check_model(model: nn.Module, folder: Path, stated: Mapping[str, Any]) -> None:
    """Refuse a model whose layers, shapes or numbers differ from those that the adapter was saved with."""
    every = adaptable_sites(model)
    for wanted in stated["sites"]:
        site = every.get(wanted["path"] if wanted["part"] is not None else wanted["name"])
        if site is None:
            raise ValueError(
                f"{folder} adapts {wanted['name']}, which this model does not have; load it onto the model that it "
                "was trained on"
            )
        shape = wanted["shape"] if wanted["part"] is None else [site.shape[0], wanted["shape"][1]]
        if list(site.shape) != list(shape):
            raise ValueError(
                f"{wanted['name']} has shape {site.shape} here and {tuple(shape)} in {folder}; load it onto the "
                "model that it was trained on"
            )
        part = None if wanted["part"] is None else tuple(wanted["part"])
        if base_fingerprint(replace(site, part=part)) != stated["base"][wanted["name"]]:
            raise ValueError(
                f"the weight of {wanted['name']} is not the one that {folder} was trained on; load it onto that model"
            )


def base_fingerprint(site: Site) -> str:
    """A hash of some of a weight's numbers in bfloat16, so that casts keep it; of a merged one, of the original."""
    before = (site.module.original if isinstance(site.module, StandIn) else None) or {}
    original = before.get(site.parameter or "weight")
    flat = whole(original if original is not None else _stored_numbers(site)).reshape(-1)
    some = flat[torch.linspace(0, len(flat) - 1, min(SAMPLE, len(flat)), dtype=torch.float64).long()]
    numbers = some.to(torch.bfloat16).float().cpu().tolist()
    return hashlib.sha256(repr(numbers).encode()).hexdigest()[:16]


def _stored_numbers(site: Site) -> Tensor:
    """The weight of a site as it is stored; of a format, its first tensor."""
    if site.parameter is not None:
        return site.layer._parameters[site.parameter]  # pyright: ignore
    weight = getattr(site.layer, "weight", None)
    if isinstance(weight, Tensor):
        stored = weight.is_floating_point() and is_foreign(weight) and weight.dtype in NUMBERS
        return numbers_of(site.layer, weight.detach()) if stored else weight.detach()
    stored = frozen_weight(site).stored_weight
    return next(iter(stored.tensors().values())) if isinstance(stored, Format) else stored
