"""The sentence that says with what a saved folder is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from polyad._stated import read_stated
from polyad.models.folder import MANIFEST


def loading_line(folder: str | Path) -> str:
    """The call that loads the model in a folder of ``polyad.save``: transformers' own where it suffices, or polyad's.

    >>> from tempfile import TemporaryDirectory
    >>> import torch, polyad
    >>> with TemporaryDirectory() as place:
    ...     loading_line(polyad.save(torch.nn.Linear(2, 2), Path(place) / "out")).replace(place, "…")
    "load it with polyad.load('…/out', like=Linear(...))"
    """
    folder = Path(folder)
    stated = read_stated(folder / MANIFEST, dict[str, Any], "save the model again")
    call = f"polyad.load({str(folder)!r}"
    if not (folder / "config.json").is_file():
        return f"load it with {call}, like={stated['kind']}(...))"
    if stated["plain"]:
        return f"plain transformers loads it: {stated['kind']}.from_pretrained({str(folder)!r})"
    return f"load it with {call}); plain transformers does not know its layers"
