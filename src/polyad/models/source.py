"""The source of a model and its tokenizer, remembered on the model itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Origin:
    """The source of a model: the name asked for, its folder or file if local, its tokenizer if it has one.

    ``beside`` is the folder that holds what came with the weights: the same, or the hub's copy on this machine.
    """

    name: str
    folder: Path | None
    tokenizer: Any
    beside: Path | None = None


def origin(model: nn.Module) -> Origin:
    """The source of this model. One that polyad did not load has its class for a name, no folder and no tokenizer."""
    return getattr(model, "polyad_origin", Origin(type(model).__name__, None, None))


def encoder(model: nn.Module) -> Callable[[str], list[int]]:
    """The function from text to this model's token ids, without special tokens."""
    tokenizer = origin(model).tokenizer
    if tokenizer is None:
        raise ValueError(
            f"{origin(model).name} has no tokenizer, so text cannot be read for it; "
            "load it with polyad.load from a folder that holds one"
        )
    return lambda text: tokenizer(text, add_special_tokens=False, verbose=False).input_ids


def identity(model: nn.Module) -> str:
    """The sha256 of the vocabulary, merges and rules of this model's tokenizer, which tells it from others."""
    tokenizer = origin(model).tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else str(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(text.encode()).hexdigest()
