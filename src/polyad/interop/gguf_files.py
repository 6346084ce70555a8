"""GGUF files by the package ``gguf``: their names and numbers for containers, reading, and writing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["TensorNames", "block_bytes", "dequantize_rows", "open_file", "quantize", "write_file"]


def _package() -> Any:
    try:
        import gguf
        import gguf.quants
    except ImportError as error:
        raise ImportError(f"GGUF files need the package gguf: pip install 'polyad[gguf]' ({error})") from None
    return gguf


def open_file(path: Path) -> Any:
    """The package's reader of a file."""
    return _package().GGUFReader(str(path))


class TensorNames:
    """The names that tensors of transformers have in the files of an architecture."""

    def __init__(self, architecture: str, layers: int) -> None:
        gguf = _package()
        number = next(n for n, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
        self._names = gguf.get_tensor_name_map(number, layers)

    def __call__(self, name: str) -> str | None:
        """The name in a file of a parameter, or None where the architecture has no place for it."""
        return self._names.get_name(name, (".weight", ".bias"))


def block_bytes(container: str) -> int:
    """Bytes of a block of a container."""
    gguf = _package()
    return gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[container]][1]


def quantize(matrix: np.ndarray, container: str) -> np.ndarray:
    """The bytes (rows, bytes of a row) of a float32 matrix in a container, as llama.cpp itself rounds to it."""
    gguf = _package()
    with np.errstate(over="ignore", invalid="ignore"):  # what leaves float16's range is seen in the result
        stored = gguf.quants.quantize(matrix, gguf.GGMLQuantizationType[container])
    return np.ascontiguousarray(stored).view(np.uint8).reshape(matrix.shape[0], -1)


def dequantize_rows(stored: np.ndarray, container: str) -> np.ndarray:
    """The float32 numbers that bytes (rows, bytes of a row) stand for."""
    gguf = _package()
    plain = {"F32": np.float32, "F16": np.float16}.get(container)
    stored = stored.view(plain) if plain else stored
    with np.errstate(invalid="ignore"):
        return gguf.quants.dequantize(stored, gguf.GGMLQuantizationType[container])


def write_file(
    path: Path, architecture: str, keys: Mapping[str, Any], tensors: Mapping[str, tuple[str, np.ndarray]]
) -> None:
    """Write a file of these keys and tensors (container, bytes of shape (…, bytes of a row)) in this order.

    Truth values, whole numbers, fractions, texts and lists of one of them become keys of that kind.
    """
    gguf = _package()
    file = gguf.GGUFWriter(path, architecture)
    try:
        for name, value in keys.items():
            _add_key(file, name, value)
        for name, (container, stored) in tensors.items():
            plain = {"F32": np.float32, "F16": np.float16}.get(container)
            kind = None if plain else gguf.GGMLQuantizationType[container]
            file.add_tensor(name, stored.view(plain) if plain else stored, raw_dtype=kind)
        file.write_header_to_file()
        file.write_kv_data_to_file()
        file.write_tensors_to_file()
    finally:
        file.close()


def _add_key(file: Any, name: str, value: Any) -> None:
    kinds = (
        (bool, "add_bool"),
        (int, "add_uint32"),
        (float, "add_float32"),
        (str, "add_string"),
        (list, "add_array"),
    )
    add = next(add for kind, add in kinds if isinstance(value, kind))
    getattr(file, add)(name, value)
