"""Files of one format: a safetensors file whose metadata describes the format."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from polyad._versions import KEY, read_version, stamp
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
    from safetensors.torch import save_file

    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists already; name another file, or remove it first")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in format.tensors().items()}
    try:
        save_file(tensors, partial, metadata={_KEY: json.dumps(format.spec()), **stamp("format")})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_format(path: str | Path, device: torch.device | str = "cpu") -> Format:
    """Read a format that ``save_format`` wrote. Raises ValueError where the file is something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            if _KEY not in metadata:
                raise ValueError(
                    f"{path} has tensors, but no description of a polyad format; name a file that save_format wrote"
                )
            read_version("format", path, metadata.get(KEY))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); save it again") from None
    return Format.from_spec(json.loads(metadata[_KEY])).replace(tensors)
