"""A compressed model as an ordinary folder: config, tokenizer, safetensors and polyad.json."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from polyad._model_card import keep_base_card, write_card
from polyad._partial import check_place, partial_path
from polyad._sealed_json import refuse_changed, write_json
from polyad._stated import check_stated, in_words, read_stated
from polyad._types import check_type
from polyad._unfinished import is_occupied
from polyad._versions import NEWEST, read_version
from polyad.formats.damage import refuse_damaged
from polyad.layers import Factors
from polyad.models import assembly, manifest, shards
from polyad.models.attention import ReducedAttention
from polyad.models.companions import read_generation, write_companions
from polyad.models.exchange import recover, swap
from polyad.models.pretrained import load_pretrained
from polyad.models.shards import MAX_SHARD
from polyad.models.source import base_of as base_of
from polyad.models.source import origin
from polyad.models.source import sha256 as sha256
from polyad.models.stated import AGAIN, Manifest, check_configuration, check_folder, check_inside

MANIFEST, BUFFERS = "polyad.json", "buffers.safetensors"


@contextmanager
def staged_folder(target: Path, *, replace: bool = False, expect: int = 0) -> Iterator[Path]:
    """A folder to write into, beside ``target``, that takes its place when all went well.

    Nothing is at ``target`` before the end, and what was there stays until then. ``expect`` is about how many
    bytes will be written: a disk without room for them is refused at once.
    """
    recover(target)
    check_free(target, replace=replace)
    target.parent.mkdir(parents=True, exist_ok=True)
    check_room(target.parent, expect)
    partial = partial_path(target)
    partial.mkdir()
    try:
        yield partial
        swap(partial, target, replace)
    except SafetensorError as error:  # what writing weights says of a full disk
        raise OSError(errno.EIO, f"{target} could not be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_room(folder: Path, expect: int) -> None:
    """Refuse a disk without room for about so many bytes."""
    free = shutil.disk_usage(folder).free
    if free < expect * 1.05:
        raise OSError(
            errno.ENOSPC,
            f"{expect / 1e6:.0f} MB are to be written to {folder} and {free / 1e6:.0f} MB are free; nothing was "
            "written",
        )


def check_free(target: Path, *, replace: bool = False) -> None:
    """Refuse an output folder that already holds something, or that cannot be made."""
    if target.is_file() or (not replace and is_occupied(target)):
        raise FileExistsError(f"{target} already holds something; choose another folder or remove it first")
    check_place(target)


def save(
    model: nn.Module,
    folder: str | Path,
    *,
    tokenizer: Any = None,
    recipe: Any = None,
    base: Mapping[str, Any] | None = None,
    seed: int | None = None,
    dtype: torch.dtype | None = None,
    max_shard_size: int = MAX_SHARD,
) -> Path:
    """Write a model to a new folder, whole or not at all, and return the folder.

    Weights keep their dtypes, or get ``dtype``; scales and integers keep theirs, and tied weights are stored once.
    Weights of more than ``max_shard_size`` bytes go into several files with an index, as transformers has them.
    Where every layer is ordinary and their widths are such that a configuration can state them, plain transformers
    loads the folder; otherwise ``polyad.load`` does, and transformers refuses it by its model type. A module that is
    no model of transformers has no configuration: ``polyad.load`` then needs another of its kind, as ``like``.

    A card, README.md, says what the model is, how it is loaded and under what licence; the base's own is kept beside
    it as README.base.md.

    The folder gets the model's generation settings, ``tokenizer`` (by default the one that ``polyad.load`` found),
    and the files of a processor that came with the model.
    """
    check_type("model", model, nn.Module, "give the model itself, as polyad.load returns it")
    manifest.refuse_unsaveable(model)
    target = Path(folder).expanduser()
    tensors, ties = manifest.split_ties(model)
    buffers = manifest.unsaved_buffers(model)
    config, plain, modules = manifest.describe(model, dtype)
    tensors = manifest.weights_before_division(model, tensors)
    shards.check_range(tensors, dtype)
    expect = sum(shards.written_bytes(t, dtype) for t in tensors.values())
    with staged_folder(target, expect=expect) as partial:
        files = shards.write_tensors(tensors, partial, dtype=dtype, limit=max_shard_size)
        version = 1 if config is not None and len(files) == 1 else NEWEST["model"]
        if buffers and not plain:
            save_file(buffers, partial / BUFFERS)
            files.append(BUFFERS)
        if config is not None:
            _write(partial / "config.json", config)
        write_companions(model, partial, tokenizer)
        described = {
            "version": version, "kind": type(model).__name__, "plain": plain, "recipe": recipe, "modules": modules,
            "ties": ties, "base": dict(base or {}), "seed": seed,
            "sha256": {name: sha256(partial / name) for name in files},
        }  # fmt: skip
        write_json(partial / MANIFEST, described)
        keep_base_card(origin(model).beside, partial)
        named = {**described, "base": {"name": origin(model).name, **described["base"]}}
        write_card(partial, named, name=target.absolute().name)
    return target


def read_model(folder: Path, dtype: torch.dtype | None = None, like: nn.Module | None = None) -> Any:
    """The model in a folder that ``save`` wrote. Every file of weights is checked by its sha256 first.

    ``like`` is a module of the architecture that the weights had before they were compressed; it stays as it is.
    """
    from polyad.interop.transformers import attach_quantizer

    stated = _json(folder, MANIFEST)
    version = read_version("model", folder / MANIFEST, stated.get("version"))
    check_stated(stated, Manifest, folder / MANIFEST, AGAIN)
    refuse_changed(stated, folder / MANIFEST, AGAIN)
    kind = stated.get("kind", "module")
    foreign = version > 1 and not (folder / "config.json").is_file() and not stated["plain"]
    if foreign and like is None:
        raise ValueError(
            f"{folder} holds a {kind}, which no configuration describes; make one as you made the original and give "
            f"it: polyad.load(folder, like={kind}(...))"
        )
    config = None if like is not None else _json(folder, "config.json")
    for name, expected in stated["sha256"].items():
        check_inside(folder, name, MANIFEST)
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is not whole: {name} is missing; copy the folder again")
        if sha256(folder / name) != expected:
            raise ValueError(f"{folder / name} was changed or truncated since it was saved; copy the folder again")
    weights = [name for name in stated["sha256"] if name.endswith(".safetensors") and name != BUFFERS]
    tensors = shards.read_weights(folder, weights)
    if config is not None:
        check_configuration(config, folder / "config.json", len(tensors))
    if stated["plain"] and like is None:
        check_folder(folder)
        model = load_pretrained(folder, dtype)
        return assembly.restore_dtypes(model, tensors) if dtype is None else model
    buffers = shards.read_weights(folder, [BUFFERS]) if BUFFERS in stated["sha256"] else {}
    with in_words(f"the model that {folder} describes cannot be made", AGAIN):
        model = read_generation(assembly.assemble(config, stated, tensors, buffers, dtype, like), folder)
        for module in model.modules():
            if isinstance(module, Factors):
                refuse_damaged(module())
            elif isinstance(module, ReducedAttention):
                module.refuse_misfit()
    if stated["modules"]:
        attach_quantizer(model)
    return model


def _json(folder: Path, name: str) -> Any:
    try:
        return read_stated(folder / name, dict[str, Any], AGAIN)
    except ValueError as error:
        raise ValueError(f"{folder} is not whole: {error}") from None


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
