"""Folders of compressed-tensors, read by transformers' own means."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from polyad.models.quiet import quiet


def require_package() -> None:
    """Refuse to go on without the package with which transformers reads such folders, saying what installs it."""
    if importlib.util.find_spec("compressed_tensors") is None:
        raise ImportError(
            "the format transformers needs the package compressed-tensors; install it with "
            "pip install 'polyad[transformers]'"
        )


def load_plainly(kind: Any, folder: Path, dtype: torch.dtype) -> tuple[Any, list[str], list[str]]:
    """A model of this class from a folder, as transformers alone loads it; names that it missed, and that it left.

    Raises ValueError where transformers refuses the folder.
    """
    bars = io.StringIO()  # compressed-tensors has progress bars of its own
    try:
        with quiet(), contextlib.redirect_stderr(bars), contextlib.redirect_stdout(bars):
            model, report = kind.from_pretrained(folder, dtype=dtype, local_files_only=True, output_loading_info=True)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"transformers does not load the folder ({said}); nothing was written") from error
    return model.eval(), sorted(report["missing_keys"]), sorted(report["unexpected_keys"])


def run_plainly(model: Any, inputs: Mapping[str, Any]) -> Any:
    """The model's output; codes that are still packed are restored before the first one, with a progress bar."""
    with contextlib.redirect_stderr(io.StringIO()):
        return model(**inputs, return_dict=True)
