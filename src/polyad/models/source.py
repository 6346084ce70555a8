"""The source of a model, its tokenizer and its files, remembered on the model itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from polyad._model_card import CARD

PROCESSOR = (
    "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "chat_template.json",
    "audio_tokenizer_config.json",
)  # fmt: skip
VOCABULARIES = (
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt", "merges.txt",
    "tekken.json", "source.spm", "target.spm", "bpe.codes", "normalizer.json",
)  # fmt: skip
"""Read by other engines' converters too, where transformers itself needs tokenizer.json alone."""


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


def hub_files(name: str) -> Path | None:
    """The folder on this machine that holds the hub's files of a model beside its weights, fetched where need be."""
    from transformers.utils.hub import cached_file

    quietly: dict[str, Any] = {
        "_raise_exceptions_for_gated_repo": False, "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }  # fmt: skip
    paths = [cached_file(name, file, **quietly) for file in ("config.json", CARD, *PROCESSOR, *VOCABULARIES)]
    homes = [Path(path).parent for path in paths if path is not None]
    return homes[0] if homes else None


def check_vocabulary(model: nn.Module, tokenizer: Any) -> None:
    """Refuse a tokenizer that can produce ids for which the model has no embedding."""
    try:
        rows = getattr(model.get_input_embeddings(), "num_embeddings", None)  # pyright: ignore
    except (AttributeError, NotImplementedError):  # models of pictures, or of both, may have none to show
        rows = None
    if tokenizer is not None and rows is not None and len(tokenizer) > rows:
        raise ValueError(
            f"the tokenizer knows {len(tokenizer)} tokens and the model's embedding has {rows} rows; "
            "they do not belong together: put the model's own tokenizer files into its folder"
        )


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
