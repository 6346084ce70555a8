"""Files of one format: a safetensors file whose metadata describes the format."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from polyad._partial import check_place
from polyad._sealed import read_sealed, write_sealed
from polyad._stated import parse_stated
from polyad.formats.damage import refuse_damaged
from polyad.formats.format import Format

_KEY = "polyad.format"


def save_format(format: Format, path: str | Path) -> None:
    """Write a format's tensors and its spec to ``path``, beside and then moved into place.

    Shared tensors are stored once a name. Raises FileExistsError where something lies at ``path`` already.

    >>> import tempfile
    >>> from polyad.formats import LowRank
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_format(LowRank(torch.ones(3, 1), torch.ones(1, 2)), folder + "/ones.safetensors")
    ...     load_format(folder + "/ones.safetensors").shape
    (3, 2)
    """
    path = Path(path)
    if os.path.lexists(path):
        raise FileExistsError(f"{path} exists already; name another file, or remove it first")
    check_place(path)
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in format.tensors().items()}
    write_sealed(path, tensors, "format", {_KEY: json.dumps(format.spec())}, replace=False)


def load_format(path: str | Path, device: torch.device | str = "cpu") -> Format:
    """Read a format that ``save_format`` wrote. Raises ValueError where the file is something else, or damaged."""
    tensors, metadata = read_sealed(Path(path), "format", "save it again", device)
    if _KEY not in metadata:
        raise ValueError(
            f"{path} has tensors, but no description of a polyad format; name a file that save_format wrote"
        )
    format = Format.from_spec(parse_stated(metadata[_KEY], dict[str, Any], path, "save it again"))
    for name, empty in format.tensors().items():
        stored = tensors.get(name)
        if stored is None or (stored.shape, stored.dtype) != (empty.shape, empty.dtype):
            what = "none" if stored is None else f"{tuple(stored.shape)} of {stored.dtype}"
            raise ValueError(
                f"{path} describes {name} of shape {tuple(empty.shape)} and {empty.dtype} and holds {what}; save it "
                "again"
            )
    format = format.replace(tensors)
    refuse_damaged(format)
    return format
