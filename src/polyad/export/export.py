"""The door of exports: one table of formats, and what all of them ask before any work."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from polyad.compress.recipe import Recipe, Step, steps
from polyad.export.gguf.grids import fit_steps as fit_gguf
from polyad.export.gguf.write import write_gguf
from polyad.export.onnx.write import write_onnx
from polyad.export.result import ExportResult
from polyad.export.transformers.write import write_transformers
from polyad.models.folder import check_free
from polyad.models.loading import check_numbers, load

FORMATS: Mapping[str, Callable[..., ExportResult]] = {
    "gguf": write_gguf, "onnx": write_onnx, "transformers": write_transformers,
}  # fmt: skip
"""What writes each format: a function of a model, a path and options by name."""


def export(
    model: nn.Module | str | os.PathLike[str], out: str | os.PathLike[str], format: str, **options: Any
) -> ExportResult:
    """Write a model for another engine, run what was written, and put it at ``out`` if it says what the model says.

    ``model`` is a model, or what ``polyad.load`` takes. ``out`` is a file for ``gguf``, and a new folder otherwise.
    ``options`` are those of the format's writer. Nothing is at ``out`` unless all went well.
    """
    if not isinstance(model, nn.Module | str | os.PathLike):
        raise TypeError(f"model is a {type(model).__name__}; give a model, its folder or its name")
    if not isinstance(out, str | os.PathLike):
        raise TypeError(f"out is a {type(out).__name__} and no path; give the path of a file or folder to make")
    check_options(format, options)
    target = Path(out).expanduser()
    check_free(target)
    whole: nn.Module = model if isinstance(model, nn.Module) else load(model)
    check_numbers(whole)
    return FORMATS[format](whole, target, **options)


GRIDS: Mapping[str, Callable[..., Any]] = {"gguf": fit_gguf}
"""What fits the steps of a recipe to the codes that a format holds."""


def fit_recipe(recipe: Recipe, format: str) -> tuple[Step, ...]:
    """The steps of a recipe with grids, groups and scales that a format holds as they are, for ``polyad.plan``.

    >>> [step.arguments["group"] for step in fit_recipe("rtn:bits=4", "gguf")]
    [32]
    """
    if format not in GRIDS:
        raise ValueError(f"format={format!r} has no grids of its own; choose one of {', '.join(sorted(GRIDS))}")
    return GRIDS[format](steps(recipe))


def check_options(format: str, options: Mapping[str, Any]) -> None:
    """Refuse a format that is not known, and an option that its writer does not take."""
    if format not in FORMATS:
        raise ValueError(f"format={format!r} is not known; choose one of {', '.join(sorted(FORMATS))}")
    takes = [name for name, p in inspect.signature(FORMATS[format]).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in takes:
            raise ValueError(f"{name} is no option of format {format!r}; it takes {', '.join(takes) or 'none'}")
