"""Models and tokenizers as transformers loads them, with its errors in plain words."""

from __future__ import annotations

import json
import pickle
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from polyad._stated import in_words
from polyad.models.misfit import refuse_misfit
from polyad.models.quiet import quiet
from polyad.models.stated import AGAIN, check_config_file

INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def load_pretrained(source: str | Path, dtype: torch.dtype | None, *, trust_remote_code: bool = False) -> Any:
    """Load a model of transformers from a folder or by its hub name, with errors that name a damaged folder.

    A file and a configuration that differ in a name or a shape are refused. ``pytorch_model.bin``, where there is no
    safetensors, is read by ``torch.load(weights_only=True)``, which makes tensors and runs no code.
    """
    again, words = "", nullcontext()
    if isinstance(source, Path):
        refuse_paths_outside(source)
        check_config_file(source)
        again, words = f"; {AGAIN}", in_words(f"the model in {source} cannot be read", AGAIN)
    with words:
        return _load(source, dtype, again, trust_remote_code)


def _load(source: str | Path, dtype: torch.dtype | None, again: str, trust_remote_code: bool) -> Any:
    import transformers

    options: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    with quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(source, **options)
        except Exception as error:  # configurations check their fields with errors of their own
            refuse_remote_code(source, error, trust_remote_code)
            if not again and isinstance(error, OSError):
                raise
            raise ValueError(f"the model in {source} cannot be read: {_first_line(error)}{again}") from error
        kind = remote_class(config) if trust_remote_code else None
        kind = kind or model_class(config, source)
        options |= {"weights_only": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
        try:
            model, notes = kind.from_pretrained(source, dtype=dtype or "auto", **options)
        except (RuntimeError, ValueError, KeyError, SafetensorError, pickle.UnpicklingError, EOFError) as error:
            refuse_remote_code(source, error, trust_remote_code)
            raise ValueError(f"the model in {source} cannot be read: {_first_line(error)}{again}") from error
    refuse_misfit(model, notes, source)
    return model


def model_class(config: Any, source: Any) -> Any:
    """The class of transformers that a configuration names, or AutoModel where it names none that it has."""
    import transformers

    names = config.architectures or ["AutoModel"]
    name = names[0] if isinstance(names, list) and names else names
    kind = getattr(transformers, name, None) if isinstance(name, str) else None
    if kind is None and isinstance(name, str) and name.isidentifier():
        return transformers.AutoModel
    if kind is not transformers.AutoModel and not _is_model(kind):
        raise ValueError(
            f"the configuration of {source} says that the model is a {name!r}, which is no class of models in "
            "transformers; architectures in config.json names the class, such as LlamaForCausalLM"
        )
    return kind


def _is_model(kind: Any) -> bool:
    import transformers

    return isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)


def remote_class(config: Any) -> Any:
    """The automatic class by which a folder's own code is found; None where the folder has none."""
    import transformers

    classes = [name for name in getattr(config, "auto_map", None) or {} if name.startswith("AutoModel")]
    return getattr(transformers, sorted(classes, key=lambda n: n == "AutoModel")[0]) if classes else None


def refuse_remote_code(source: Any, error: Exception, trusted: bool) -> None:
    """Say in polyad's words that a model brings code of its own, where that is what transformers refused."""
    if "trust_remote_code" in str(error) and not trusted:
        raise ValueError(
            f"{source} brings Python code of its own, which polyad does not run; read it, and if you trust it, load "
            "with polyad.load(..., trust_remote_code=True), or --trust-remote-code on the command line"
        ) from None


def refuse_paths_outside(folder: Path) -> None:
    """Refuse an index of weights whose files are not in the folder itself."""
    for index in INDICES:
        if not (folder / index).is_file():
            continue
        try:
            homes = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError(f"{folder / index} cannot be read; copy the folder again") from None
        for name in set(map(str, homes)):
            check_inside(folder, name, index)


def check_inside(folder: Path, name: Any, said_by: str) -> None:
    """Refuse the name of a file that is not in the folder itself."""
    if not isinstance(name, str) or name in ("", ".", "..") or any(mark in name for mark in "/\\\0"):
        raise ValueError(f"{folder / said_by} names a file {name!r} outside of its folder; get the folder again")


def load_tokenizer(source: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer of a folder or of a hub name; None where a folder has none."""
    import transformers

    if isinstance(source, Path) and not any(
        (source / f).is_file() for f in ("tokenizer.json", "tokenizer_config.json")
    ):
        return None
    with quiet():
        try:
            return transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        except Exception as error:  # the tokenizers package raises Exception itself
            refuse_remote_code(source, error, trust_remote_code)
            raise ValueError(
                f"the tokenizer in {source} cannot be read ({_first_line(error)}); copy its files again: "
                "tokenizer.json and tokenizer_config.json"
            ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
