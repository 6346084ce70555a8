"""A model written as a GGUF file."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from polyad.export.result import ExportResult


def write(model: nn.Module, out: Path, *, container: str | None = None, unchecked: bool = False) -> ExportResult:
    """Write a decoder to a GGUF file."""
    raise ValueError(f"{type(model).__name__} cannot be written to {out} yet ({container}, {unchecked})")
