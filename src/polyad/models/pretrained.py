"""Models and tokenizers as transformers loads them, with its errors in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from polyad._stated import in_words
from polyad.models.quiet import quiet
from polyad.models.stated import check_config_file


def load_pretrained(source: str | Path, dtype: torch.dtype | None) -> Any:
    """Load a model of transformers from a folder or by its hub name, with errors that name a damaged folder."""
    again = "; copy the folder again" if isinstance(source, Path) else ""
    if isinstance(source, Path):
        check_config_file(source)
        with in_words(f"the model in {source} cannot be read", "copy the folder again"):
            return _load(source, dtype, again)
    return _load(source, dtype, again)


def _load(source: str | Path, dtype: torch.dtype | None, again: str) -> Any:
    import transformers

    with quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(source)
        except (OSError, ValueError) as error:
            if not again:
                raise
            said = str(error).strip().splitlines()[0].rstrip(".")
            raise ValueError(f"the model in {source} cannot be read: {said}{again}") from error
        name = next(iter(config.architectures or ["AutoModel"]))
        kind = getattr(transformers, name, transformers.AutoModel)
        try:
            return kind.from_pretrained(source, dtype=dtype or "auto")
        except (RuntimeError, ValueError, KeyError, SafetensorError) as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"the model in {source} cannot be read: {said}{again}") from error


def load_tokenizer(source: str | Path) -> Any:
    """Load the tokenizer of a folder or of a hub name; None where a folder has none."""
    import transformers

    if isinstance(source, Path) and not any(
        (source / f).is_file() for f in ("tokenizer.json", "tokenizer_config.json")
    ):
        return None
    with quiet():
        try:
            return transformers.AutoTokenizer.from_pretrained(source)
        except Exception as error:  # the tokenizers package raises Exception itself
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"the tokenizer in {source} cannot be read ({said}); copy its files again: tokenizer.json and "
                "tokenizer_config.json"
            ) from error
