"""A compressed model as an ordinary folder: config, tokenizer, safetensors and polyad.json."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from polyad.models import manifest

MANIFEST = "polyad.json"
WEIGHTS, BUFFERS = "model.safetensors", "buffers.safetensors"
VERSION = 1


@contextmanager
def written(target: Path, *, replace: bool = False, expect: int = 0) -> Iterator[Path]:
    """A folder to write into, beside ``target``, that takes its place when all went well.

    Nothing is at ``target`` before the end, and what was there stays until then. ``expect`` is about how many
    bytes will be written: a disk without room for them is refused at once.
    """
    aside = _aside(target)
    if aside.exists() and not target.exists():
        aside.replace(target)  # a kill fell between the two moves of a replacement
    check_free(target, replace=replace)
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < expect * 1.05:
        raise OSError(
            errno.ENOSPC,
            f"{expect / 1e6:.0f} MB are to be written to {target.parent} and {free / 1e6:.0f} MB are free; nothing "
            "was written",
        )
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        _swap(partial, target)
    except SafetensorError as error:  # what writing weights says of a full disk
        raise OSError(errno.EIO, f"{target} could not be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _swap(partial: Path, target: Path) -> None:
    """Put ``partial`` in the place of ``target``; what was there is moved aside first and removed last."""
    old = _aside(target)
    if old.exists() and target.exists():
        shutil.rmtree(old)  # left by a kill after the new folder was in place
    if target.exists():
        target.replace(old)
    try:
        partial.replace(target)
    except OSError:
        if old.exists():
            old.replace(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def check_free(target: Path, *, replace: bool = False) -> None:
    """Refuse an output folder that already holds something."""
    if target.is_file() or (not replace and target.is_dir() and any(target.iterdir())):
        raise FileExistsError(f"{target} already holds something; choose another folder or remove it first")


def save(
    model: nn.Module,
    folder: str | Path,
    *,
    tokenizer: Any = None,
    recipe: Any = None,
    base: Mapping[str, Any] | None = None,
    seed: int | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a model to a new folder, whole or not at all, and return the folder.

    Weights keep their dtypes, or get ``dtype``; scales and integers keep theirs, and tied weights are stored once.
    Where every layer is ordinary and their widths are such
    that a configuration can state them, plain transformers loads the folder; otherwise ``polyad.load`` does, and
    transformers refuses it by its model type.
    """
    target = Path(folder).expanduser()
    tensors, ties = manifest.unshared(model, dtype)
    buffers = manifest.unsaved_buffers(model)
    expect = sum(t.numel() * t.element_size() for t in tensors.values())
    config, plain, modules = manifest.describe(model, dtype)
    with written(target, expect=expect) as partial:
        save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
        files = [WEIGHTS]
        if buffers and not plain:
            save_file(buffers, partial / BUFFERS)
            files.append(BUFFERS)
        _write(partial / "config.json", config)
        if getattr(model, "generation_config", None) is not None:
            model.generation_config.save_pretrained(partial)  # pyright: ignore
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)
        _write(
            partial / MANIFEST,
            {
                "version": VERSION,
                "plain": plain,
                "recipe": recipe,
                "modules": modules,
                "ties": ties,
                "base": dict(base or {}),
                "seed": seed,
                "sha256": {name: sha256(partial / name) for name in files},
            },
        )
    return target


def read(folder: Path, dtype: torch.dtype | None = None) -> Any:
    """The model in a folder that ``save`` wrote. Every file of weights is held against its sha256 first."""
    try:
        stated = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} is not whole: {MANIFEST} or config.json cannot be read ({error}); copy the folder again"
        ) from None
    if not isinstance(stated, dict) or not {"version", "modules", "ties", "sha256"} <= stated.keys():
        raise ValueError(f"{folder / MANIFEST} does not describe a model; copy the folder again")
    if stated["version"] > VERSION:
        raise ValueError(
            f"{folder} was written by a newer polyad (folder version {stated['version']}, this one reads up to "
            f"{VERSION}); upgrade with: pip install -U polyad"
        )
    for name, expected in stated["sha256"].items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} is not whole: {name} is missing; copy the folder again")
        if sha256(folder / name) != expected:
            raise ValueError(f"{folder / name} was changed or truncated since it was saved; copy the folder again")
    try:
        tensors = load_file(folder / WEIGHTS)
        buffers = load_file(folder / BUFFERS) if BUFFERS in stated["sha256"] else {}
    except SafetensorError as error:
        raise ValueError(f"the weights in {folder} cannot be read ({error}); copy the folder again") from None
    return manifest.assemble(config, stated, tensors, buffers, dtype)


def base_of(folder: Path | None) -> dict[str, str]:
    """The sha256 of every weight file of a local folder, or of the one file that holds a model."""
    if folder is None:
        return {}
    if folder.is_file():
        return {folder.name: sha256(folder)}
    return {file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))}


def sha256(path: Path) -> str:
    """The sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def nbytes(folder: Path) -> int:
    """Bytes of all tensors in a folder's weight files, read from their headers."""
    from safetensors import safe_open

    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:  # pyright: ignore[reportPrivateImportUsage]
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                width = torch.empty(0, dtype=_DTYPES[part.get_dtype()]).element_size()
                total += width * math.prod(part.get_shape())
    return total


_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
