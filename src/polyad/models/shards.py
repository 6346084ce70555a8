"""A model's tensors in one safetensors file, or in several with an index, as transformers names them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from polyad._types import check_type

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MAX_SHARD = 5_000_000_000
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""The dtypes that the parameters of a model are computed in."""


def split_by_bytes(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Names in their order, cut into parts of at most ``limit`` bytes; a larger tensor is a part of its own."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError(
            f"max_shard_size={limit!r} is not a number of bytes; give a whole number such as 2_000_000_000"
        )
    parts: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if parts[-1] and filled + size > limit:
            parts.append([])
            filled = 0
        parts[-1].append(name)
        filled += size
    return parts


def write_tensors(tensors: Mapping[str, Tensor], folder: Path, *, dtype: torch.dtype | None, limit: int) -> list[str]:
    """Write tensors into a folder, parameters as ``dtype``; returns the names of the files, the index among them.

    They are cast a file at a time, so that a second copy of a large model is never held.
    """
    parts = split_by_bytes({name: written_bytes(t, dtype) for name, t in tensors.items()}, limit)
    files = [WEIGHTS]
    if len(parts) > 1:
        files = [f"model-{i:05d}-of-{len(parts):05d}.safetensors" for i in range(1, len(parts) + 1)]
    for file, part in zip(files, parts, strict=True):
        save_file(
            {name: _cast_for_storage(tensors[name], dtype) for name in part}, folder / file, metadata={"format": "pt"}
        )
    if len(parts) == 1:
        return files
    homes = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    total = sum(written_bytes(t, dtype) for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": homes}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return [*files, INDEX]


def check_range(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
    """Refuse a dtype in which a tensor would become infinite, or nothing but zeros, naming the tensor."""
    if dtype is None:
        return
    check_type("dtype", dtype, torch.dtype, "give one of torch's, such as torch.bfloat16")
    if dtype not in FLOATS:
        raise ValueError(
            f"dtype={dtype} is none that a model is computed in; choose one of {', '.join(map(str, FLOATS))}, or "
            "compress with a method of few bits such as rtn:bits=8"
        )
    limits = torch.finfo(dtype)
    for name, tensor in tensors.items():
        if _target(tensor, dtype) == tensor.dtype or tensor.is_meta or tensor.numel() == 0:
            continue
        largest = _largest_finite(tensor)
        if not bool(torch.isfinite(largest.to(dtype))):
            raise ValueError(
                f"{name} holds {float(largest):.6g}, and {dtype} holds numbers up to {limits.max:.6g}; store in "
                "torch.bfloat16 or torch.float32"
            )
        if bool(largest > 0) and not bool(largest.to(dtype)):
            raise ValueError(
                f"{name} holds no number above {float(largest):.3g}, and all of them are zero in {dtype}; store in "
                "torch.bfloat16 or torch.float32"
            )


def round_to(model: nn.Module, dtype: torch.dtype) -> None:
    """Give every parameter the value that it has in ``dtype``, keeping its own dtype. Scales are no parameters.

    Refused, with nothing changed, where one would become infinite.
    """
    check_range(dict(model.named_parameters()), dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype).to(parameter.dtype)


def _largest_finite(tensor: Tensor) -> Tensor:
    """The largest absolute number of a tensor but for infinities and NaN, which it has in any dtype."""
    values = tensor.detach()
    largest = values.float().abs().max() if values.dtype.itemsize == 1 else values.abs().max()
    return largest if bool(torch.isfinite(largest)) else values.nan_to_num(0.0, 0.0, 0.0).abs().max()


def read_weights(folder: Path, files: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of several files of a folder together."""
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= load_file(folder / file)
        except (SafetensorError, UnicodeError, RuntimeError) as error:
            raise ValueError(f"{folder / file} cannot be read ({error}); copy the folder again") from None
    return tensors


def written_bytes(tensor: Tensor, dtype: torch.dtype | None) -> int:
    """Bytes that a tensor takes once it is written."""
    return tensor.numel() * (_target(tensor, dtype)).itemsize


def _cast_for_storage(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    stored = tensor.detach().to(_target(tensor, dtype)).contiguous()
    return (
        stored.clone() if stored.untyped_storage().nbytes() != stored.nbytes else stored
    )  # a part of another's memory


def _target(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """Scales and codes are no parameters, and keep their dtype."""
    cast = isinstance(tensor, nn.Parameter) and tensor.is_floating_point()
    return dtype if dtype is not None and cast else tensor.dtype


def sha256(path: Path) -> str:
    """The sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_bytes(folder: Path) -> int:
    """Bytes of all tensors in a folder's weight files, read from their headers."""
    from safetensors import safe_open

    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:  # pyright: ignore[reportPrivateImportUsage]
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                total += _DTYPES[part.get_dtype()].itemsize * math.prod(part.get_shape())
    return total


_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "C64": torch.complex64,
}  # fmt: skip
