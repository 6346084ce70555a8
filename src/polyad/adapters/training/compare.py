"""Comparison of adapters trained alike at equal counts, each kept as soon as it is finished."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from polyad._callback import Callback
from polyad._stated import read_stated
from polyad._unfinished import state_file
from polyad._versions import NEWEST, read_version
from polyad.adapters.host.adapters import Adapters
from polyad.adapters.host.build import Method
from polyad.adapters.host.size import size_to_count, trained_count
from polyad.adapters.methods.lora import LoRA
from polyad.adapters.training.batches import Tokens
from polyad.adapters.training.finetune import NAME, finetune, write_record
from polyad.adapters.training.settings import Finetuning
from polyad.evaluation.trial_records import AdapterRecord, FailedAdapter
from polyad.models.surgery import Which
from polyad.train.state import difference, fingerprint


def compare_adapters(
    model: Any,
    methods: Mapping[str, Method],
    asked: Finetuning,
    folder: Path,
    *,
    rank: int = 8,
    callback: Callback | None = None,
) -> Iterable[AdapterRecord | FailedAdapter]:
    """Train each method at the size nearest to LoRA's count at ``rank``; yield one record a method as it is finished.

    Every finished method is kept in ``folder`` at once: NAME.json and the adapter, NAME. What is there of the same
    training is not done again, and one that was killed goes on. A method that fails yields its sentence.
    """
    which = asked.which(model)
    count = trained_count(model, which, partial(LoRA, rank=rank))
    identity = {"tokens": Tokens(model, asked).digest, "model": fingerprint(model)}
    stated = {"rank": rank, **asked.stated(), "dtype": str(model.dtype), **identity}
    places = {name: folder / _file_name(name) for name in methods}
    done = {
        name: _finished_record(place, json.loads(json.dumps({"method": name, **stated})))
        for name, place in places.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, method) in enumerate(methods.items()):
        if callback is not None:
            callback(number, len(methods), {"stage": "methods", "method": name})
        record: AdapterRecord | FailedAdapter | None = done[name]
        if record is not None:
            state_file(places[name]).unlink(missing_ok=True)  # a kill came before its removal
        else:
            try:
                record = _train_one(
                    model, method, asked, places[name], which, count, callback, {"method": name, **stated}
                )
            except (ValueError, TypeError, RuntimeError) as error:
                record = {"version": NEWEST["record"], "spelled": name, "error": str(error)}
        yield record
    if callback is not None:
        callback(len(methods), len(methods), {"stage": "methods"})


def _train_one(
    model: Any,
    method: Method,
    asked: Finetuning,
    place: Path,
    which: Which,
    count: int,
    callback: Callback | None,
    stated: Any,
) -> AdapterRecord:
    """Train and keep one method of a comparison; the model is afterwards as it was before."""
    method, _ = size_to_count(model, which, method, count)
    state = state_file(place)
    try:
        adapters, record = finetune(model, method, asked, state=state, callback=callback)
        sized: AdapterRecord = {**record, "spelled": stated["method"], "lora_parameters": count, "asked": stated}
        write_record(_record_of(place), sized)
        adapters.save(NAME, place)
    finally:
        adapters = Adapters(model)
        if NAME in adapters.names:
            adapters.detach(NAME)
    state.unlink(missing_ok=True)
    return sized


def _file_name(name: str) -> str:
    """The file name of a method as it is spelled."""
    return "".join(c if c.isalnum() or c in "=.,-_" else "-" for c in name)


def _record_of(place: Path) -> Path:
    return place.with_name(place.name + ".json")


def _finished_record(place: Path, stated: Mapping[str, Any]) -> AdapterRecord | None:
    """The record of this very training if it is finished; a finished one of another is refused."""
    if not place.is_dir():
        return None
    try:
        record: Any = read_stated(_record_of(place), dict[str, Any])
    except ValueError:
        record = {}
    read_version("record", _record_of(place), record.get("version"))
    asked = record.get("asked")
    if asked != stated:
        what = f" ({difference(json.dumps(asked), json.dumps(stated))})" if asked else ""
        raise ValueError(
            f"{place} holds an adapter of another training{what}; choose another folder, or remove it first"
        )
    return record
