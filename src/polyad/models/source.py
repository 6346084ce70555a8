"""The source of a model, remembered on the model itself."""

from __future__ import annotations

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
