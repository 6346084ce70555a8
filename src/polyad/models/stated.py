"""The schema of what a model's folder states, and bounds of its counts by the tensors that are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from polyad._stated import read_stated

AGAIN = "copy the folder again"
REPEATED = re.compile(r"layers?$|experts$|blocks?$|depths?$|codebooks$|stages$|^n_layers?$")
"""Names of counts of parts that a model makes one by one."""
LABELS = 10**6
"""The most labels of a classifier: transformers writes a name for each."""


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


def check_config_file(folder: Path) -> None:
    """``check_configuration`` on config.json of a folder that transformers will read."""
    if (folder / "config.json").is_file():
        stated = read_stated(folder / "config.json", dict[str, Any], AGAIN)
        check_configuration(stated, folder / "config.json", _count(folder))


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
