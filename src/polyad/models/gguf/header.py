"""The keys and tensor names of a GGUF file, and refusals of files that are no whole model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Header:
    """The keys of a GGUF file, without the architecture's prefix, and the names of its tensors."""

    path: Path
    architecture: str
    keys: Mapping[str, Any]
    tensors: tuple[str, ...]
    rotary: Mapping[str, np.ndarray]
    """The small tensors by which rotary frequencies are divided, by name."""


def read_header(path: Path) -> Header:
    """Read the keys of a file, but for its vocabulary, and the names of its tensors."""
    from polyad.interop.gguf_files import open_file

    reader = open_file(path)
    architecture = str(_value(reader.fields.get("general.architecture")) or "")
    keys: dict[str, Any] = {}
    for name, field in reader.fields.items():
        if not name.startswith("tokenizer.") or name.endswith("_id"):
            keys[name.removeprefix(f"{architecture}.")] = _value(field)
    rotary = {t.name: np.array(t.data, dtype=np.float32) for t in reader.tensors if t.name.startswith("rope_f")}
    return Header(path, architecture, keys, tuple(t.name for t in reader.tensors), rotary)


def _value(field: Any) -> Any:
    return None if field is None else field.contents()


def refuse_partial(header: Header) -> None:
    """Refuse adapters, projectors, vocabularies and parts of a split model, each by what it is."""
    kind = header.keys.get("general.type", "model")
    if kind == "adapter" or any(name.endswith((".lora_a", ".lora_b")) for name in header.tensors):
        raise ValueError(
            f"{header.path} is an adapter (LoRA), not a model; load the model that it was trained on, or a file into "
            "which it was merged"
        )
    if kind in ("mmproj", "imatrix") or header.architecture == "clip":
        what = "an importance matrix" if kind == "imatrix" else "a projector for pictures or sound"
        raise ValueError(f"{header.path} is {what}, not a model; give the file of the language model")
    count = int(header.keys.get("split.count") or 0)
    if count > 1:
        number = int(header.keys.get("split.no") or 0) + 1
        raise ValueError(
            f"{header.path} is part {number} of {count} of a split model; join them first with llama.cpp: "
            "llama-gguf-split --merge FIRST_PART WHOLE.gguf"
        )
    if not header.tensors:
        raise ValueError(f"{header.path} holds no tensors (a vocabulary alone, or keys); give the file of a model")


def widths_by_layer(header: Header) -> list[str]:
    """The keys that state a width or a number of heads for each layer, which no configuration can."""
    names = ("feed_forward_length", "attention.head_count", "attention.head_count_kv")
    return [n for n in names if isinstance(header.keys.get(n), list) and len(set(header.keys[n])) > 1]
