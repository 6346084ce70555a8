"""Files beside the weights: generation settings, tokenizer, chat templates, processor; what came in goes out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from torch import nn

from polyad._model_card import CARD
from polyad.models.quiet import quiet
from polyad.models.source import origin

GENERATION = "generation_config.json"
PROCESSOR = (
    "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json", "chat_template.json",
    "audio_tokenizer_config.json",
)  # fmt: skip
TEMPLATES = ("chat_template.jinja", "additional_chat_templates")
VOCABULARIES = (
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.json", "vocab.txt", "merges.txt",
    "tekken.json", "source.spm", "target.spm", "bpe.codes", "normalizer.json",
)  # fmt: skip
"""Read by other engines' converters too, where transformers itself needs tokenizer.json alone."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def write_companions(model: nn.Module, folder: Path, tokenizer: Any = None) -> None:
    """Write a model's generation settings and tokenizer, and copy what else came with it when it was loaded.

    The settings and the tokenizer are the model's as they now are. Without ``tokenizer`` it is the one that the
    model was loaded with.
    """
    source = origin(model)
    tokenizer = source.tokenizer if tokenizer is None else tokenizer
    settings = getattr(model, "generation_config", None)
    if settings is not None:
        settings.to_json_file(folder / GENERATION)  # save_pretrained refuses settings that were loaded with a warning
    names = (*PROCESSOR, *VOCABULARIES)
    if tokenizer is not None:
        with quiet():
            tokenizer.save_pretrained(folder)
        names += tuple(getattr(tokenizer, "vocab_files_names", {}).values())
    else:
        names += (*TOKENIZER, *TEMPLATES)
    for name in names:
        _copy_new(source.beside, folder, name)


def _copy_new(source: Path | None, folder: Path, name: str) -> None:
    if source is None or Path(name).name != name or (folder / name).exists():
        return
    if (source / name).is_dir():
        shutil.copytree(source / name, folder / name)
    elif (source / name).is_file():
        shutil.copyfile(source / name, folder / name)


def read_generation(model: Any, folder: Path) -> Any:
    """The model with the generation settings of its folder, where it has some."""
    from transformers import GenerationConfig

    if getattr(model, "generation_config", None) is None or not (folder / GENERATION).is_file():
        return model
    try:
        with quiet():
            model.generation_config = GenerationConfig.from_pretrained(folder)
    except (OSError, ValueError, TypeError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{folder / GENERATION} cannot be read ({said}); copy the folder again") from None
    return model


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
