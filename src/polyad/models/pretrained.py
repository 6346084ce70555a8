"""Models and tokenizers as transformers loads them, with its errors in plain words."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from polyad._stated import in_words
from polyad.models.quiet import quiet
from polyad.models.stated import AGAIN

HARMLESS_MISSING = re.compile(r"(^|\.)(position_ids|num_batches_tracked|masked_spec_embed)$")
"""Read in training alone, or made again by transformers itself."""

HARMLESS_UNEXPECTED = re.compile(
    r"(^|\.)(position_ids|token_type_ids|num_batches_tracked|rotary_emb\.inv_freq|relative_position_index|version)$"
    r"|\.(attn|attention)\.(masked_)?bias$"  # causal masks of old files; what a model takes is never asked here
)


def load_pretrained(source: str | Path, dtype: torch.dtype | None, *, trust_remote_code: bool = False) -> Any:
    """Load a model of transformers from a folder or by its hub name, with errors that name a damaged folder.

    A file and a configuration that differ in a name or a shape are refused. ``pytorch_model.bin``, where there is no
    safetensors, is read by ``torch.load(weights_only=True)``, which makes tensors and runs no code.
    """
    again, words = "", nullcontext()
    if isinstance(source, Path):
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


def refuse_misfit(model: nn.Module, notes: Mapping[str, Any], source: Any) -> None:
    """Refuse a model whose file and configuration differ in names or shapes, by what transformers noted in loading.

    Tensors of another task's head, which another class of transformers takes from the same configuration, are left
    out as they always were: BERT's files hold the head that predicts the next sentence.
    """
    missing = sorted(name for name in set(notes["missing_keys"]) if not HARMLESS_MISSING.search(name))
    unexpected = sorted(name for name in set(notes["unexpected_keys"]) if not _is_harmless(model, name))
    mismatched = sorted(notes.get("mismatched_keys") or [], key=str)
    if unexpected:
        unexpected = without_other_heads(model, unexpected)
    parts: list[str] = []
    if missing:
        parts.append(f"it has no numbers for {_list(missing)} (transformers would draw random ones)")
    if unexpected:
        parts.append(f"its configuration has no place for {_list(unexpected)}")
    for name, stored, expected in mismatched[:3]:
        parts.append(f"{name} has the shape {tuple(stored)} and the configuration says {tuple(expected)}")
    if parts:
        raise ValueError(
            f"the model in {source} is not what its config.json describes: {'; '.join(parts)}. Get the folder again, "
            "or the configuration that belongs to these weights"
        )


def _is_harmless(model: nn.Module, name: str) -> bool:
    """True for names of tensors that follow from the configuration, which older files hold all the same."""
    buffers = {path for path, _ in model.named_buffers(remove_duplicate=False)}
    return bool(HARMLESS_UNEXPECTED.search(name)) or name in buffers or any(b.endswith(f".{name}") for b in buffers)


def without_other_heads(model: Any, names: Sequence[str]) -> list[str]:
    """Those of the names that no class of transformers takes from this model's configuration."""
    left = list(names)
    for kind in _relatives(type(model)):
        try:
            with torch.device("meta"):
                other = kind(model.config)
        except Exception:  # a class that cannot be made of this configuration takes nothing from it
            continue
        left = [name for name in left if not _takes(other, name)]
        if not left:
            break
    return left


def _relatives(kind: type) -> Iterable[Any]:
    """Classes of models in the same file of transformers that are made of the same configuration."""
    for other in vars(sys.modules[kind.__module__]).values():
        same = isinstance(other, type) and getattr(other, "config_class", None) is getattr(kind, "config_class", 0)
        if same and other is not kind and hasattr(other, "from_pretrained"):
            yield other


def _takes(other: Any, name: str) -> bool:
    """True if the other class has a tensor of this name, with or without the prefix that the base model has."""
    prefix = getattr(other, "base_model_prefix", "")
    names = other.state_dict().keys()
    return any(n in names for n in (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")))


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


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
