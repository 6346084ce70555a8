"""The schema of what a model's folder states, and bounds of its counts by the tensors that are there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from polyad._stated import read_stated

AGAIN = "copy the folder again"
REPEATED = re.compile(r"layers?$|experts$|blocks?$|depths?$|codebooks$|stages$|^n_layers?$")
"""Names of counts of parts that a model makes one by one."""
LABELS = 10**6
"""The most labels of a classifier: transformers writes a name for each."""
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


class Manifest(TypedDict):
    """polyad.json of a model."""

    version: int
    plain: bool
    modules: dict[str, _Module]
    ties: dict[str, str]
    sha256: dict[str, str]
    kind: NotRequired[str]
    checksum: NotRequired[str]


class Pretrained(TypedDict):
    """The quantization_config of a model that save_pretrained wrote."""

    modules: dict[str, _Module]
    ties: dict[str, str]
    dtype: str | None
    wrapped: list[str]


class _Module(TypedDict):
    """A module that is not the architecture's."""

    layer: str


def check_configuration(stated: dict[str, Any], place: object, tensors: int) -> dict[str, Any]:
    """Refuse a configuration that counts more parts than ``tensors`` can be of. Returns it."""
    most = 100 + 10 * tensors
    for name, value in _numbers("", stated):
        limit = most if REPEATED.search(name) else LABELS if name.endswith("labels") else None
        if limit is not None and not -limit <= value <= limit:
            raise ValueError(
                f"{place} states {name}={str(value)[:40]}, and the folder has {tensors} tensors: at most {limit} are "
                f"possible; {AGAIN}"
            )
    return stated


def check_folder(folder: Path) -> None:
    """Refuse a folder for transformers whose index names files outside of it, or whose configuration cannot be."""
    refuse_paths_outside(folder)
    if (folder / "config.json").is_file():
        stated = read_stated(folder / "config.json", dict[str, Any], AGAIN)
        check_configuration(stated, folder / "config.json", _count(folder))


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


def _count(folder: Path) -> int:
    """The number of tensors in the weight files of a folder, from their headers."""
    from safetensors import SafetensorError, safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, "pt") as file:
                total += len(file.keys())
        except (SafetensorError, OSError, UnicodeError):
            continue  # whoever reads the file says what is wrong with it
    return total or 100_000  # there are pickles, which are not opened here


def _numbers(name: str, value: Any) -> Any:
    """The numbers in JSON that are not in a list, by the key that they stand under."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _numbers(str(key), one)
    elif isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        yield name, value
