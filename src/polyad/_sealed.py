"""Safetensors files that polyad reads again, with a checksum of all that they hold in their metadata."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from polyad._partial import whole_file
from polyad._versions import KEY, read_version, stamp

SEAL = "polyad.sha256"
"""The key of the checksum in the metadata; files of polyad 0.1.0 have none."""


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """The sha256 of tensors with their names, dtypes and shapes, and of metadata, its own place left out."""
    digest = hashlib.sha256()
    for key in sorted(metadata.keys() - {SEAL}):
        digest.update(repr((key, metadata[key])).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_sealed(
    path: Path, tensors: Mapping[str, Tensor], kind: str, metadata: Mapping[str, str], *, replace: bool = True
) -> None:
    """Write tensors and metadata with the version of this kind of file and a checksum, whole or not at all."""
    stored = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    stated = {**metadata, **stamp(kind)}
    stated[SEAL] = checksum(stored, stated)
    try:
        with whole_file(path, replace=replace) as partial:
            save_file(stored, partial, stated)
    except SafetensorError as error:  # what writing says of a full disk
        raise OSError(errno.EIO, f"{path} could not be written: {error}") from error


def read_sealed(
    path: Path, kind: str, remedy: str, device: torch.device | str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file; one of a newer polyad, or one that was changed, is refused.

    ``remedy`` ends the sentence that says so.
    """
    try:
        with safe_open(str(path), "pt", device=str(device)) as file:
            metadata = dict(file.metadata() or {})
            read_version(kind, path, metadata.get(KEY))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, UnicodeError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); {remedy}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}); {remedy}") from None
    if SEAL in metadata and metadata[SEAL] != checksum(tensors, metadata):
        raise ValueError(f"{path} was changed since it was written: its checksum is another; {remedy}")
    return tensors, metadata
