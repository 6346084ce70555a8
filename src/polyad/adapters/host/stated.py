"""The statements of an adapter's folder, read and held to their schema."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from polyad._sealed_json import refuse_changed
from polyad._stated import check_stated, read_stated
from polyad._versions import read_version
from polyad.models.folder import MANIFEST, sha256

WEIGHTS = "adapter.safetensors"
LARGEST = 10**6
"""Numbers up to this one are never refused: counts of steps, for example."""


class _Site(TypedDict):
    """A layer that is adapted, or some rows of it."""

    name: str
    path: str
    kind: str
    shape: list[int]
    part: tuple[int, int] | None


class Stated(TypedDict):
    """The JSON that describes an adapter."""

    version: int
    name: str
    method: str
    arguments: dict[str, Any]
    seed: int
    dropout: float
    trained: NotRequired[list[str]]
    sites: list[_Site]
    base: dict[str, str]
    sha256: dict[str, str]


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The JSON and the tensors in a folder that ``write_folder`` wrote; a damaged one is refused."""
    instead = "give the folder that polyad adapt or Adapters.save wrote (of a comparison, one that lies in it)"
    try:
        stated = read_stated(folder / MANIFEST, dict[str, Any], instead)
    except ValueError as error:
        raise ValueError(f"{folder} holds no adapter: {error}") from None
    if stated.get("kind") != "adapter":
        raise ValueError(f"{folder / MANIFEST} describes no adapter; {instead}")
    read_version("adapter", folder / MANIFEST, stated.get("version"))
    check_stated(stated, Stated, folder / MANIFEST)
    refuse_changed(stated, folder / MANIFEST, "copy it again")
    if {site["name"] for site in stated["sites"]} != stated["base"].keys():
        raise ValueError(f"{folder / MANIFEST} does not state the same layers under sites and base; copy it again")
    if not (folder / WEIGHTS).is_file() or sha256(folder / WEIGHTS) != stated["sha256"].get(WEIGHTS):
        raise ValueError(f"{folder / WEIGHTS} is missing or was changed since it was saved; copy the folder again")
    try:
        return stated, load_file(folder / WEIGHTS)
    except (SafetensorError, UnicodeError, RuntimeError) as error:
        raise ValueError(f"{folder / WEIGHTS} cannot be read ({error}); copy the folder again") from None


def refuse_huge(folder: Path, method: str, arguments: Any, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Refuse sizes beyond any side of what is adapted or of what the folder holds: they would fill the memory."""
    most = max((n for t in (*model.parameters(), *model.buffers(), *tensors.values()) for n in t.shape), default=1)
    for name, value in arguments.items():
        for one in value.values() if isinstance(value, Mapping) else [value]:
            if isinstance(one, int) and abs(one) > max(LARGEST, most):
                raise ValueError(
                    f"{folder / MANIFEST} states {name}={one} for {method}, which is more than its tensors have; "
                    "copy the folder again"
                )
